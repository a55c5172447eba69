/* What a slot's generation tells the host: tokens, logits and its end, kept so that a lost event can be sent again. */
#include "report.h"

#include "link.h"

#define ENTRY_BYTES (4u * REPORT_ENTRY_WORDS)
#define SEND_ENTRIES ((FRAME_MAX_PAYLOAD - sizeof(struct wire_tokens)) / ENTRY_BYTES)
#define SEND_LOGITS ((FRAME_MAX_PAYLOAD - sizeof(struct wire_logits)) / 4u)

static int32_t logits[SEND_LOGITS]; /* of the one pass whose logits are handed over now */
static uint32_t resent;

void report_begin(struct report *report, uint32_t sequence, uint32_t first, uint32_t logit_position,
		  uint32_t vocab_size)
{
	report->progress = REPORT_RUNNING;
	report->sequence = sequence;
	report->first = first;
	report->count = report->sent = report->acknowledged = 0;
	report->vocab_size = vocab_size;
	report->logit_position = logit_position;
	report->logit_first = report->logit_count = 0;
}

void report_forget(struct report *report)
{
	report->progress = REPORT_SILENT;
	report->count = report->sent = report->acknowledged = 0;
}

bool report_room(const struct report *report, uint32_t more)
{
	/* What was acknowledged has been sent. */
	return report->count + more - report->acknowledged < PROTOCOL_TOKEN_RING;
}

void report_token(struct report *report, uint32_t token, uint32_t cycles)
{
	uint32_t *entry = report->entries[report->count % PROTOCOL_TOKEN_RING];

	entry[0] = token;
	entry[1] = cycles;
	report->count++;
}

uint32_t report_token_at(const struct report *report, uint32_t index)
{
	return report->entries[index % PROTOCOL_TOKEN_RING][0];
}

uint32_t report_count(const struct report *report)
{
	return report->count;
}

void report_logit(struct report *report, int32_t logit)
{
	struct wire_logits head = {report->logit_position, report->logit_first};
	bool last = report->logit_first + report->logit_count + 1 == report->vocab_size;

	logits[report->logit_count++] = logit;
	if (!last && report->logit_count != SEND_LOGITS)
		return;
	link_send2(OPCODE_LOGITS, STATUS_OK, report->sequence, &head, sizeof head, logits, 4 * report->logit_count);
	report->logit_first = last ? 0 : report->logit_first + report->logit_count;
	report->logit_position += last;
	report->logit_count = 0;
}

void report_done(struct report *report, const struct wire_done *done)
{
	report->done = *done;
	report->progress = REPORT_ENDED;
}

/* Send tokens from index to end, as an event or a reply; at most one frame of them, and none beyond the ring's end. */
static uint32_t send_tokens(const struct report *report, uint8_t opcode, uint32_t sequence, uint32_t index,
			    uint32_t end)
{
	struct wire_tokens head = {index, report->first + index, report->count, report->progress == REPORT_RUNNING};
	uint32_t place = index % PROTOCOL_TOKEN_RING, n = end - index;

	if (n > SEND_ENTRIES)
		n = SEND_ENTRIES;
	if (n > PROTOCOL_TOKEN_RING - place)
		n = PROTOCOL_TOKEN_RING - place;
	link_send2(opcode, STATUS_OK, sequence, &head, sizeof head, report->entries[place], n * ENTRY_BYTES);
	return n;
}

static void send_done(const struct report *report)
{
	link_send(OPCODE_DONE, STATUS_OK, report->sequence, &report->done, sizeof report->done);
}

void report_poll(struct report *report)
{
	uint32_t n = report->count - report->sent;

	if (n > SEND_ENTRIES)
		n = SEND_ENTRIES;
	if (n != 0 && link_room(sizeof(struct wire_tokens) + n * ENTRY_BYTES))
		report->sent += send_tokens(report, OPCODE_TOKENS, report->sequence, report->sent, report->sent + n);
	if (report->progress == REPORT_ENDED && report->sent == report->count && link_room(sizeof report->done)) {
		send_done(report);
		report->progress = REPORT_DONE_SENT;
	}
}

bool report_pending(const struct report *report)
{
	return report->progress == REPORT_RUNNING || report->progress == REPORT_ENDED;
}

enum status report_resend(struct report *report, uint32_t sequence, const struct wire_resend *resend,
			  struct wire_error *error)
{
	uint32_t oldest = report->count > PROTOCOL_TOKEN_RING ? report->count - PROTOCOL_TOKEN_RING : 0;
	uint32_t index = resend->index, left = report->sent - index;

	if (resend->generation != 0 && (report->progress == REPORT_SILENT || resend->generation != report->sequence)) {
		*error = (struct wire_error){.value = resend->generation};
		return STATUS_FORGOTTEN;
	}
	if (index < oldest || index > report->sent) {
		*error = (struct wire_error){.value = index, .limit = index < oldest ? oldest : report->sent};
		return STATUS_BAD_VALUE;
	}
	if (index > report->acknowledged)
		report->acknowledged = index;
	if (resend->most != 0 && left > resend->most)
		left = resend->most;
	resent += send_tokens(report, OPCODE_RESEND, sequence, index, index + left);
	if (report->progress == REPORT_DONE_SENT)
		send_done(report);
	return STATUS_OK;
}

uint32_t report_resent(void)
{
	return resent;
}
