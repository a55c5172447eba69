/* The integer sampler of spec/llama2_spec/sampling.py, bit for bit.
 * Candidates are ordered by a heap, as far as needed only: mostly a few tokens decide. */
#include "sampler.h"

#include "exp2.h"

#define NO_TOKEN UINT32_MAX

/* The slot that is served now. */
static struct sampler *slot;

/* One choice, from sampler_choose to sampler_account, and the statistics of all. */
static struct {
	int32_t maximum;        /* of the result being sampled */
	uint64_t mass;
	int64_t lost;           /* weight that the penalty took from the candidates */
	int32_t base;           /* is subtracted from logits: the largest one where weights are relative to it */
	bool near;              /* they are */
	int32_t reference;      /* of the weights: the maximum, unless the penalty moved the first place */
	uint32_t count;
	const struct llama2_candidate *candidates; /* as ordered by the last choice */
	uint32_t weights[LLAMA2_MAX_CANDIDATES]; /* of the ordered ones, from the end down */
	bool drawn;
	uint32_t draws;
	uint64_t dropped;
} s;

void sampler_install(struct sampler *sampler, uint32_t *history)
{
	sampler->kept = history;
	sampler->end = 0;
}

void sampler_select(struct sampler *sampler)
{
	slot = sampler;
}

/* What the penalty can look back at from here: a rewind brought older tokens back. */
static void recall(uint32_t position)
{
	for (uint32_t at = position > PROTOCOL_MAX_HISTORY ? position - PROTOCOL_MAX_HISTORY : 0; at != position; at++)
		if (slot->kept != 0)
			slot->history[at % PROTOCOL_MAX_HISTORY] = slot->kept[at];
		else if (at + PROTOCOL_MAX_HISTORY < slot->end)
			slot->history[at % PROTOCOL_MAX_HISTORY] = NO_TOKEN;
}

static void scales(void)
{
	uint64_t least = (uint64_t)1 << 32;
	uint64_t core = slot->temperature == 0 ? (uint64_t)SAMPLING_ONE << 32 : (slot->temperature < least ? least : slot->temperature);

	slot->scale = exp2_logit_scale(core);
	slot->near_scale = exp2_logit_scale((slot->temperature < SAMPLING_FINEST ? SAMPLING_FINEST : slot->temperature)
					    << SAMPLING_NEAR_SHIFT);
}

void sampler_begin(const struct wire_generate *options)
{
	slot->options = options;
	slot->temperature = (uint64_t)options->temperature << 32 | options->temperature_low;
	slot->random = options->seed != 0 ? options->seed : 1;
	slot->penalising = options->repetition_penalty > SAMPLING_ONE && options->repetition_window != 0;
	slot->reciprocal = (int32_t)((1ull << 32) / options->repetition_penalty);
	scales();
	if (slot->penalising || slot->kept == 0)
		recall(options->position);
	slot->end = options->position;
	slot->draws = 0;
	slot->dropped = 0;
	s.drawn = false;
}

bool sampler_wanted(void)
{
	return slot->temperature != 0 || slot->penalising;
}

uint32_t sampler_logit_scale(void)
{
	return slot->scale;
}

void sampler_remember(uint32_t position, uint32_t token)
{
	slot->history[position % PROTOCOL_MAX_HISTORY] = token;
	slot->end = position + 1;
	if (slot->kept != 0)
		slot->kept[position] = token;
}

void sampler_prepare(uint32_t position)
{
	uint32_t window = slot->options->repetition_window;

	if (!slot->penalising)
		return;
	slot->recent_from = position > window ? position - window : 0;
	slot->recent_to = position;
	for (uint32_t i = 0; i < SAMPLER_RECENT_WORDS; i++)
		slot->recent[i] = 0;
	for (uint32_t at = slot->recent_from; at != slot->recent_to; at++) {
		uint32_t token = slot->history[at % PROTOCOL_MAX_HISTORY];

		slot->recent[token / 32 % SAMPLER_RECENT_WORDS] |= 1u << token % 32;
	}
}

static bool is_recent(uint32_t token)
{
	if ((slot->recent[token / 32 % SAMPLER_RECENT_WORDS] >> token % 32 & 1) == 0)
		return false;
	for (uint32_t at = slot->recent_from; at != slot->recent_to; at++)
		if (slot->history[at % PROTOCOL_MAX_HISTORY] == token)
			return true;
	return false;
}

static uint32_t weight_against(int32_t logit, int32_t reference)
{
	return exp2_weight(exp2_logit(logit, slot->scale), reference);
}

static uint32_t weight(int32_t logit)
{
	int64_t below = (int64_t)logit - s.base;

	if (!s.near)
		return weight_against(logit, s.reference);
	if (below < -(1 << SAMPLING_NEAR_BITS))
		below = -(1 << SAMPLING_NEAR_BITS);
	return exp2_weight(exp2_logit((int32_t)below * (1 << SAMPLING_NEAR_SHIFT), slot->near_scale), 0);
}

static int32_t penalised(int32_t logit)
{
	int64_t factor = logit > 0 ? slot->reciprocal : (int64_t)slot->options->repetition_penalty;
	int64_t product = (logit * factor) >> 16;

	return product < INT32_MIN ? INT32_MIN : (int32_t)product;
}

static void penalise(struct llama2_candidate *candidates)
{
	s.lost = 0;
	for (uint32_t i = 0; slot->penalising && i < s.count; i++) {
		int32_t logit = candidates[i].logit;

		if (!is_recent(candidates[i].token))
			continue;
		candidates[i].logit = penalised(logit);
		if (!s.near)
			s.lost += (int64_t)weight(logit) - weight(candidates[i].logit);
	}
}

/* a comes after b. */
static bool after(const struct llama2_candidate *a, const struct llama2_candidate *b)
{
	return a->logit < b->logit || (a->logit == b->logit && a->token > b->token);
}

static void sift(struct llama2_candidate *heap, uint32_t at, uint32_t size)
{
	struct llama2_candidate moving = heap[at];

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= size)
			break;
		if (child + 1 < size && after(&heap[child], &heap[child + 1]))
			child++;
		if (!after(&moving, &heap[child]))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = moving;
}

/* Move the first of the heap to its end, and give its weight. */
static uint32_t extract(struct llama2_candidate *heap, uint32_t size)
{
	struct llama2_candidate first = heap[0];

	heap[0] = heap[size - 1];
	heap[size - 1] = first;
	sift(heap, 0, size - 1);
	return s.weights[size - 1] = weight(first.logit);
}

static uint32_t coin(void)
{
	slot->random ^= slot->random >> 12;
	slot->random ^= slot->random << 25;
	slot->random ^= slot->random >> 27;
	return (uint32_t)(slot->random * SAMPLING_MULTIPLIER >> 32) >> (32 - SAMPLING_COIN_BITS);
}

/* The token at target in the ordered candidates, which end the array; taken of them are ordered already. */
static uint32_t walk(struct llama2_candidate *heap, uint32_t taken, uint64_t target)
{
	for (uint32_t i = s.count; i > s.count - taken; i--) {
		if (target < s.weights[i - 1])
			return heap[i - 1].token;
		target -= s.weights[i - 1];
	}
	return heap[s.count - 1].token;
}

/* Choose among the shortest beginning of the order that the options keep. */
static uint32_t draw_truncated(struct llama2_candidate *heap, uint64_t mass, uint32_t random)
{
	const struct wire_generate *options = slot->options;
	uint32_t most = options->top_k != 0 && options->top_k < s.count ? options->top_k : s.count;
	uint64_t cut = options->top_p % SAMPLING_ONE != 0 ? options->top_p * mass >> 16 : UINT64_MAX;
	uint64_t total = extract(heap, s.count);
	uint32_t floor = (uint64_t)options->min_p * (uint32_t)total >> 16;
	uint32_t taken = 1;

	while (taken < most && total < cut) {
		uint32_t w = extract(heap, s.count - taken);

		if (w < floor)
			break;
		total += w;
		taken++;
	}
	return walk(heap, taken, random * total >> SAMPLING_COIN_BITS);
}

/* Choose among all candidates, in order only until the target is reached. */
static uint32_t draw_all(struct llama2_candidate *heap, uint64_t mass, uint32_t random)
{
	uint64_t target = random * mass >> SAMPLING_COIN_BITS;
	uint64_t total = 0;

	for (uint32_t left = s.count; left != 0; left--) {
		total += extract(heap, left);
		if (target < total)
			return heap[left - 1].token;
	}
	/* Beyond the candidates: that range is mapped onto all of them, which keeps their proportions. */
	if (total != 0)
		target = (target - total) * total / (mass - total);
	return walk(heap, s.count, target);
}

static uint64_t kept_weight(int32_t reference)
{
	uint64_t kept = 0;

	for (uint32_t i = 0; i < s.count; i++)
		kept += weight_against(s.candidates[i].logit, reference);
	return kept;
}

/* The mass that a draw is a share of; the candidates are a heap already. */
static uint64_t mass_of_draw(void)
{
	int32_t top = s.candidates[0].logit;
	int32_t fallen = s.maximum - (exp2_logit(top, slot->scale) >> 16) - 1;
	uint64_t kept, outside, mass = 0;

	if (s.near) {
		s.base = top;
		for (uint32_t i = 0; i < s.count; i++)
			mass += weight(s.candidates[i].logit);
		return mass;
	}
	if (!slot->penalising || fallen <= 0)
		return (int64_t)s.mass > s.lost ? s.mass - s.lost : 0;
	kept = kept_weight(s.maximum) + s.lost;
	outside = s.mass > kept ? s.mass - kept : 0;
	outside <<= fallen < (int32_t)SAMPLING_OUTSIDE_SHIFT ? (uint32_t)fallen : SAMPLING_OUTSIDE_SHIFT;
	s.reference = s.maximum - fallen;
	return (outside < SAMPLING_OUTSIDE_LIMIT ? outside : SAMPLING_OUTSIDE_LIMIT) + kept_weight(s.reference);
}

uint32_t sampler_choose(const struct llama2_result *result, struct llama2_candidate *candidates)
{
	const struct wire_generate *options = slot->options;
	uint64_t mass;

	s.count = result->kept < LLAMA2_MAX_CANDIDATES ? result->kept : LLAMA2_MAX_CANDIDATES;
	s.maximum = s.reference = result->maximum;
	s.near = options->temperature == 0 || s.maximum <= SAMPLING_REFERENCE_LOW || s.maximum >= SAMPLING_REFERENCE_HIGH;
	s.mass = result->mass;
	s.candidates = candidates;
	penalise(candidates);
	for (uint32_t i = s.count / 2; i-- != 0;)
		sift(candidates, i, s.count);
	s.drawn = slot->temperature != 0;
	if (!s.drawn)
		return candidates[0].token;
	mass = mass_of_draw();
	if (options->top_k != 0 || options->top_p % SAMPLING_ONE != 0 || options->min_p != 0)
		return draw_truncated(candidates, mass, coin());
	return draw_all(candidates, mass, coin());
}

void sampler_account(void)
{
	uint64_t kept = s.lost, dropped;

	if (!s.drawn)
		return;
	s.drawn = false;
	s.draws++;
	slot->draws++;
	if (s.near)
		return;
	kept += kept_weight(s.maximum);
	if (s.mass <= kept)
		return;
	dropped = (((s.mass - kept) << SAMPLING_DROPPED_BITS) / s.mass) << (32 - SAMPLING_DROPPED_BITS);
	s.dropped += dropped;
	slot->dropped += dropped;
}

uint32_t sampler_draws(void)
{
	return s.draws;
}

uint64_t sampler_dropped(void)
{
	return s.dropped;
}

void sampler_clear(void)
{
	s.draws = 0;
	s.dropped = 0;
}
