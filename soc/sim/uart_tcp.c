// LiteX simulation module: the SoC's byte-wide "sim" UART on a TCP port of the loopback interface.
//
// A client is read only as far as there is room, so bursts of any length arrive whole. Output waits for a client, up
// to RING bytes, of which the oldest go first. Clients come and go; one at a time. SIM_UART_PORT names the port, 0 or
// none takes a free one; either way a line "listening on socket://127.0.0.1:PORT" tells.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "error.h"
#include "modules.h"

#define RING        65536u  // bytes, a power of two
#define POLL_CYCLES 256u    // between looks at the sockets

struct ring {
	uint8_t bytes[RING];
	unsigned put, take;     // free-running
};

struct session {
	struct ring in, out;    // client to SoC, SoC to client
	int listener, client;   // client is -1 while there is none
	unsigned cycles;
	clk_edge_state_t edge;
	uint8_t *sys_clk;
	uint8_t *source_valid, *source_ready, *source_data;    // SoC to us
	uint8_t *sink_valid, *sink_ready, *sink_data;          // us to SoC
};

static unsigned ring_used(const struct ring *r) { return r->put - r->take; }
static void ring_push(struct ring *r, uint8_t byte) { r->bytes[r->put++ % RING] = byte; }

// Length of the contiguous piece that starts at `at` and holds at most `n` bytes.
static unsigned ring_piece(unsigned at, unsigned n)
{
	unsigned to_end = RING - at % RING;
	return n < to_end ? n : to_end;
}

// True if the transfer may be tried again later, false if the peer has gone.
static bool would_block(ssize_t n) { return n < 0 && (errno == EAGAIN || errno == EINTR); }

static void client_close(struct session *s)
{
	close(s->client);
	s->client = -1;
}

static void client_accept(struct session *s)
{
	int one = 1, fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (s->client >= 0) {   // taken: the newcomer reads an end of file
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	s->client = fd;
}

static void client_send(struct session *s)
{
	struct ring *r = &s->out;
	while (s->client >= 0 && ring_used(r)) {
		ssize_t n = send(s->client, r->bytes + r->take % RING, ring_piece(r->take, ring_used(r)),
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			r->take += n;
			continue;
		}
		if (!would_block(n))
			client_close(s);
		return;
	}
}

static void client_receive(struct session *s)
{
	struct ring *r = &s->in;
	while (s->client >= 0 && ring_used(r) < RING) {
		ssize_t n = recv(s->client, r->bytes + r->put % RING, ring_piece(r->put, RING - ring_used(r)),
				 MSG_DONTWAIT);
		if (n > 0) {
			r->put += n;
			continue;
		}
		if (!would_block(n))
			client_close(s);
		return;
	}
}

static int uart_tick(void *session, uint64_t time_ps)
{
	struct session *s = session;

	(void)time_ps;
	if (!clk_pos_edge(&s->edge, *s->sys_clk))
		return RC_OK;
	if (++s->cycles % POLL_CYCLES == 0) {
		client_receive(s);  // first: it notices that the old client has gone
		client_accept(s);
		client_send(s);
	}

	// Called after the edge: the pads show what the SoC will act on at the next one, and so does what is set here.
	if (*s->source_valid && ring_used(&s->out) == RING) {
		client_send(s);
		if (s->client < 0)
			s->out.take++;
	}
	*s->source_ready = ring_used(&s->out) < RING;
	if (*s->source_valid && *s->source_ready)
		ring_push(&s->out, *s->source_data);

	*s->sink_valid = ring_used(&s->in) != 0;
	if (*s->sink_valid) {
		*s->sink_data = s->in.bytes[s->in.take % RING];
		if (*s->sink_ready)
			s->in.take++;
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
	const char *port = getenv("SIM_UART_PORT");
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port ? atoi(port) : 0),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t length = sizeof address;
	int one = 1;

	(void)args;
	*session = s;
	if (!s)
		return RC_NOENMEM;
	s->client = -1;
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(s->listener, (struct sockaddr *)&address, length) || listen(s->listener, 1)) {
		fprintf(stderr, "uart_tcp: cannot listen on port %s: %s\n", port, strerror(errno));
		return RC_ERROR;
	}
	getsockname(s->listener, (struct sockaddr *)&address, &length);
	printf("listening on socket://127.0.0.1:%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return RC_OK;
}

static void *pad(const struct pad_list_s *list, const char *name)
{
	for (const struct pad_s *p = list->pads; p->name; p++)
		if (!strcmp(p->name, name))
			return p->signal;
	fprintf(stderr, "uart_tcp: no pad %s in %s\n", name, list->name);
	exit(1);
}

static int uart_add_pads(void *session, struct pad_list_s *list)
{
	struct session *s = session;

	if (!strcmp(list->name, "serial")) {
		s->source_valid = pad(list, "source_valid");
		s->source_ready = pad(list, "source_ready");
		s->source_data = pad(list, "source_data");
		s->sink_valid = pad(list, "sink_valid");
		s->sink_ready = pad(list, "sink_ready");
		s->sink_data = pad(list, "sink_data");
	} else if (!strcmp(list->name, "sys_clk")) {
		s->sys_clk = pad(list, "sys_clk");
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
