// TCP ports of the loopback interface that take one client at a time, with a buffer each way; for the UART modules.
//
// A client is read only as far as there is room, so bursts of any length arrive whole. Output waits for a client, up
// to RING bytes, of which the oldest go first. Clients come and go.
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
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
#include "pin.h"

#define RING        65536u  // bytes, a power of two
#define POLL_CYCLES 256u    // between looks at the sockets

struct ring {
	uint8_t bytes[RING];
	unsigned put, take;     // free-running
};

struct port {
	struct ring in, out;    // client to SoC, SoC to client
	int listener, client;   // client is -1 while there is none
	unsigned cycles;
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

static void client_close(struct port *p)
{
	close(p->client);
	p->client = -1;
}

static void client_accept(struct port *p)
{
	int one = 1, fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (p->client >= 0) {   // taken: the newcomer reads an end of file
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	p->client = fd;
}

static void client_send(struct port *p)
{
	struct ring *r = &p->out;
	while (p->client >= 0 && ring_used(r)) {
		ssize_t n = send(p->client, r->bytes + r->take % RING, ring_piece(r->take, ring_used(r)),
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			r->take += n;
			continue;
		}
		if (!would_block(n))
			client_close(p);
		return;
	}
}

static void client_receive(struct port *p)
{
	struct ring *r = &p->in;
	while (p->client >= 0 && ring_used(r) < RING) {
		ssize_t n = recv(p->client, r->bytes + r->put % RING, ring_piece(r->put, RING - ring_used(r)),
				 MSG_DONTWAIT);
		if (n > 0) {
			r->put += n;
			continue;
		}
		if (!would_block(n))
			client_close(p);
		return;
	}
}

// Once per clock cycle.
static void port_poll(struct port *p)
{
	if (++p->cycles % POLL_CYCLES)
		return;
	client_receive(p);      // first: it notices that the old client has gone
	client_accept(p);
	client_send(p);
}

// Room for one more byte to the client; without a client the oldest goes.
static bool port_room(struct port *p)
{
	if (ring_used(&p->out) == RING) {
		client_send(p);
		if (p->client < 0)
			p->out.take++;
	}
	return ring_used(&p->out) < RING;
}

// Listen on a port, which is given as text; NULL or 0 takes a free one. Returns its number, or 0 if the port is not
// available.
static int port_open(struct port *p, const char *number)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(number ? atoi(number) : 0),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t length = sizeof address;
	int one = 1;

	p->client = -1;
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(p->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(p->listener, (struct sockaddr *)&address, length) || listen(p->listener, 1)) {
		fprintf(stderr, "uart: cannot listen on port %s: %s\n", number, strerror(errno));
		return 0;
	}
	getsockname(p->listener, (struct sockaddr *)&address, &length);
	return ntohs(address.sin_port);
}
