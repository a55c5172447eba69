// LiteX simulation module: the SoC's byte-wide "sim" UART on a TCP port, see port.h.
//
// SIM_UART_PORT names the port; 0 or none takes a free one. A line "listening on socket://127.0.0.1:PORT" tells which
// one it is.
#include "port.h"

struct session {
	struct port port;
	clk_edge_state_t edge;
	uint8_t *sys_clk;
	uint8_t *source_valid, *source_ready, *source_data;    // SoC to us
	uint8_t *sink_valid, *sink_ready, *sink_data;          // us to SoC
};

static int uart_tick(void *session, uint64_t time_ps)
{
	struct session *s = session;
	struct ring *in = &s->port.in;

	(void)time_ps;
	if (!clk_pos_edge(&s->edge, *s->sys_clk))
		return RC_OK;
	port_poll(&s->port);

	// Called after the edge: the pads show the values that the SoC acts on at the next edge, and it also acts on
	// values set here.
	*s->source_ready = !*s->source_valid || port_room(&s->port);
	if (*s->source_valid && *s->source_ready)
		ring_push(&s->port.out, *s->source_data);

	*s->sink_valid = ring_used(in) != 0;
	if (*s->sink_valid) {
		*s->sink_data = in->bytes[in->take % RING];
		if (*s->sink_ready)
			in->take++;
	}
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
	int number;

	(void)args;
	*session = s;
	if (!s)
		return RC_NOENMEM;
	number = port_open(&s->port, getenv("SIM_UART_PORT"));
	if (!number)
		return RC_ERROR;
	printf("listening on socket://127.0.0.1:%d\n", number);
	fflush(stdout);
	return RC_OK;
}

static int uart_add_pads(void *session, struct pad_list_s *list)
{
	struct session *s = session;

	if (!strcmp(list->name, "serial")) {
		s->source_valid = find_pad(list, "source_valid");
		s->source_ready = find_pad(list, "source_ready");
		s->source_data = find_pad(list, "source_data");
		s->sink_valid = find_pad(list, "sink_valid");
		s->sink_ready = find_pad(list, "sink_ready");
		s->sink_data = find_pad(list, "sink_data");
	} else if (!strcmp(list->name, "sys_clk")) {
		s->sys_clk = find_pad(list, "sys_clk");
	}
	return RC_OK;
}

static struct ext_module_s module = {
	.name = "uart_tcp",
	.start = uart_start,
	.new_sess = uart_new,
	.add_pads = uart_add_pads,
	.tick = uart_tick,
};

int litex_sim_ext_module_init(int (*register_module)(struct ext_module_s *))
{
	return register_module(&module);
}
