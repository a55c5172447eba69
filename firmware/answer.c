/* Answers to the request that is being handled. */
#include "answer.h"

#include "link.h"

const struct frame_header *request;
uint32_t boot_id;

void reply(const void *payload, uint32_t bytes)
{
	link_send(request->opcode, STATUS_OK, link_sequence(), payload, bytes);
}

void refuse_with(enum status status, const struct wire_error *error)
{
	struct wire_error answer = *error;

	answer.boot = boot_id;
	link_send(request->opcode, status, link_sequence(), &answer, sizeof answer);
}

void refuse(enum status status, enum subject subject, uint32_t value, uint32_t limit)
{
	struct wire_error error = {subject, value, limit};

	refuse_with(status, &error);
}
