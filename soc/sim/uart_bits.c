// LiteX simulation module: a USB bridge on the SoC's serial pins, bit by bit in simulated time.
//
// It has a rate of its own: if the SoC's differs, bytes arrive wrong or not at all, as on a wire. It is set
// on a second port: the line "RATE\n" is answered by the same line once all that the client wrote before has left at
// the old rate. A client that goes takes the cable with it: bytes that it wrote and that were not sent yet are lost, in
// the middle of a bit. A line "listening on bits://127.0.0.1:PORT?control=PORT" tells both ports.
#include "port.h"

#define FIRST_RATE 115200
#define CHANGE_PS  100000000    // 100 us; a bridge is told its rate in a USB frame of at least 125 us

struct session {
	struct port port, control;
	clk_edge_state_t edge;
	uint8_t *sys_clk, *tx, *rx;     // the pins bear the SoC's names
	uint64_t bit_ps, idle_ps;       // idle_ps: when the last bit to the SoC had left
	unsigned rate, next_rate;       // next_rate is 0 unless one is asked for
	bool sending, receiving, broken;
	bool connected;
	uint64_t send_ps, receive_ps;   // beginning of the start bit
	unsigned sent, received;        // the frame on the line, start bit first; the bits that were sampled
	unsigned count;                 // of those
};

static void rate_set(struct session *s, unsigned rate)
{
	s->rate = rate;
	s->bit_ps = 1000000000000 / rate;
}

static void control_poll(struct session *s, uint64_t now_ps)
{
	struct ring *in = &s->control.in, *out = &s->control.out;
	char text[16];

	port_poll(&s->control);
	for (; !s->next_rate && ring_used(in); in->take++) {
		uint8_t byte = in->bytes[in->take % RING];
		static unsigned number;

		if (byte >= '0' && byte <= '9' && number < 100000000) {
			number = 10 * number + byte - '0';
		} else {
			s->next_rate = number;
			number = 0;
			client_receive(&s->port);       // what was written before has arrived, on the other connection
		}
	}
	if (s->sending || ring_used(&s->port.in) || !s->next_rate)
		s->idle_ps = now_ps;
	if (s->next_rate && now_ps - s->idle_ps >= CHANGE_PS) {
		rate_set(s, s->next_rate);
		s->next_rate = 0;
		for (int i = 0, n = snprintf(text, sizeof text, "%u\n", s->rate); i < n; i++)
			ring_push(out, text[i]);
		client_send(&s->control);
	}
}

// The client to the SoC.
static void send_bits(struct session *s, uint64_t now_ps)
{
	struct ring *in = &s->port.in;

	if (s->connected && s->port.client < 0) {
		in->take = in->put;
		s->sending = false;
	}
	s->connected = s->port.client >= 0;
	if (s->sending && now_ps - s->send_ps >= 10 * s->bit_ps)
		s->sending = false;
	if (!s->sending && ring_used(in)) {
		s->sent = 1u << 9 | in->bytes[in->take++ % RING] << 1;
		s->send_ps = now_ps;
		s->sending = true;
	}
	*s->rx = s->sending ? s->sent >> (now_ps - s->send_ps) / s->bit_ps & 1 : 1;
}

// The SoC to the client.
static void receive_bits(struct session *s, uint64_t now_ps)
{
	if (!s->receiving) {
		if (s->broken && *s->tx)
			s->broken = false;
		if (!s->broken && !*s->tx) {
			s->receiving = true;
			s->receive_ps = now_ps;
			s->received = s->count = 0;
		}
		return;
	}
	// In the middle of each bit.
	if (now_ps - s->receive_ps < s->count * s->bit_ps + s->bit_ps / 2)
		return;
	s->received |= (unsigned)*s->tx << s->count++;
	if (s->count < 10)
		return;
	s->receiving = false;
	s->broken = !(s->received >> 9);        // no stop bit: wait for the line to become idle
	if (!s->broken && !(s->received & 1) && port_room(&s->port))
		ring_push(&s->port.out, s->received >> 1);
}

static int uart_tick(void *session, uint64_t time_ps)
{
	struct session *s = session;

	if (!clk_pos_edge(&s->edge, *s->sys_clk))
		return RC_OK;
	port_poll(&s->port);
	control_poll(s, time_ps);
	send_bits(s, time_ps);
	receive_bits(s, time_ps);
	return RC_OK;
}

static int uart_start(void *event_base)
{
	(void)event_base;
	return RC_OK;
}

static int uart_new(void **session, char *args)
{
	struct session *s = calloc(1, sizeof *s);
	int number, control;

	(void)args;
	*session = s;
	if (!s)
		return RC_NOENMEM;
	rate_set(s, FIRST_RATE);
	number = port_open(&s->port, getenv("SIM_UART_PORT"));
	control = port_open(&s->control, NULL);
	if (!number || !control)
		return RC_ERROR;
	printf("listening on bits://127.0.0.1:%d?control=%d\n", number, control);
	fflush(stdout);
	return RC_OK;
}

static int uart_add_pads(void *session, struct pad_list_s *list)
{
	struct session *s = session;

	if (!strcmp(list->name, "serial")) {
		s->tx = find_pad(list, "tx");
		s->rx = find_pad(list, "rx");
	} else if (!strcmp(list->name, "sys_clk")) {
		s->sys_clk = find_pad(list, "sys_clk");
	}
	return RC_OK;
}

static struct ext_module_s module = {
	.name = "uart_bits",
	.start = uart_start,
	.new_sess = uart_new,
	.add_pads = uart_add_pads,
	.tick = uart_tick,
};

int litex_sim_ext_module_init(int (*register_module)(struct ext_module_s *))
{
	return register_module(&module);
}
