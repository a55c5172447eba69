/* The integer sampler of spec/llama2_spec/sampling.py, bit for bit.
 * The core hands out candidates in order, with their weights, as far as needed: mostly a few tokens decide. Where a
 * penalty changes the order, or weights are relative to the largest logit, all are read and ordered by a heap here. */
#include "sampler.h"

#include "exp2.h"
#include "hot.h"

#define NO_TOKEN UINT32_MAX

/* The slot that is served now. */
static struct sampler *slot;

/* One choice, from sampler_choose to sampler_account, and the statistics of all. */
static struct {
	int32_t maximum;        /* of the result being sampled */
	uint64_t mass;
	uint32_t total;         /* weight of its candidates, before the penalty */
	int64_t lost;           /* weight that the penalty took from the candidates */
	int32_t base;           /* is subtracted from logits: the largest one where weights are relative to it */
	bool near;              /* they are */
	int32_t reference;      /* of the weights: the maximum, unless the penalty moved the first place */
	uint32_t count;
	struct llama2_candidate candidates[LLAMA2_MAX_CANDIDATES]; /* a heap; those that were taken lie behind it, the
								    * first one last */
	uint32_t weights[LLAMA2_MAX_CANDIDATES]; /* of those; or, of candidates that came in order, llama2_next */
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
	uint64_t wanted = slot->temperature == 0 ? (uint64_t)SAMPLING_ONE << 32 : slot->temperature;
	uint64_t core = wanted < least ? least : wanted;

	slot->scale = exp2_logit_scale(core);
	slot->near_scale = exp2_logit_scale((slot->temperature < SAMPLING_FINEST ? SAMPLING_FINEST : slot->temperature)
					    << SAMPLING_NEAR_SHIFT);
}

COLD void sampler_begin(const struct wire_generate *options)
{
	slot->options = options;
	slot->temperature = (uint64_t)options->temperature << 32 | options->temperature_low;
	slot->random = options->seed != 0 ? options->seed : 1;
	slot->penalising = options->repetition_penalty > SAMPLING_ONE && options->repetition_window != 0;
	slot->reciprocal = (int32_t)((1ull << 32) / options->repetition_penalty);
	scales();
	/* Rows that came with the cache: nobody said which tokens they are of. */
	while (slot->end < options->position)
		sampler_remember(slot->end, NO_TOKEN);
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

/* What the options keep is the shortest beginning of the order: so many at most, up to this weight in all. */
static uint32_t most_kept(void)
{
	uint32_t top_k = slot->options->top_k;

	return top_k != 0 && top_k < s.count ? top_k : s.count;
}

static uint32_t most_weight(uint64_t mass)
{
	uint64_t cut = slot->options->top_p * mass >> 16;

	/* All candidates together weigh less than 2**23. */
	return slot->options->top_p % SAMPLING_ONE == 0 || cut > UINT32_MAX ? UINT32_MAX : (uint32_t)cut;
}

static bool truncating(void)
{
	return slot->options->top_k != 0 || slot->options->top_p % SAMPLING_ONE != 0 || slot->options->min_p != 0;
}

/* Where a draw among all lands. Beyond the candidates: that range is mapped onto all of them, which keeps their
 * proportions. */
static uint32_t onto_candidates(uint64_t target, uint64_t mass, uint32_t total)
{
	if (target >= total && total != 0)
		target = (target - total) * total / (mass - total);
	return target < UINT32_MAX ? (uint32_t)target : UINT32_MAX;
}

/* Choose among the shortest beginning of the order that the options keep. */
static uint32_t draw_truncated(struct llama2_candidate *heap, uint64_t mass, uint32_t random)
{
	uint32_t most = most_kept(), cut = most_weight(mass);
	uint32_t total = extract(heap, s.count);
	uint32_t floor = (uint64_t)slot->options->min_p * total >> 16;
	uint32_t taken = 1;

	while (taken < most && total < cut) {
		uint32_t w = extract(heap, s.count - taken);

		if (w < floor)
			break;
		total += w;
		taken++;
	}
	return walk(heap, taken, (uint64_t)random * total >> SAMPLING_COIN_BITS);
}

/* Choose among all candidates, in order only until the target is reached. */
static uint32_t draw_all(struct llama2_candidate *heap, uint64_t mass, uint32_t random)
{
	uint64_t target = random * mass >> SAMPLING_COIN_BITS;
	uint32_t total = 0;

	for (uint32_t left = s.count; left != 0; left--) {
		total += extract(heap, left);
		if (target < total)
			return heap[left - 1].token;
	}
	return walk(heap, s.count, onto_candidates(target, mass, total));
}

static inline uint32_t next_weight(uint32_t next)
{
	return next & ((1u << LLAMA2_NEXT_PLACE) - 1u);
}

static inline uint32_t next_token(uint32_t next)
{
	return llama2_candidate_token(next >> LLAMA2_NEXT_PLACE);
}

/* The token at target in the core's order. */
static uint32_t walk_next(uint32_t target)
{
	uint32_t first = llama2_next(), next = first;

	for (uint32_t left = s.count; target >= next_weight(next); next = llama2_next()) {
		target -= next_weight(next);
		if (--left == 0)
			return next_token(first);
	}
	return next_token(next);
}

/* Choose as draw_truncated does, in the core's order. */
static uint32_t next_truncated(uint64_t mass, uint32_t random)
{
	uint32_t most = most_kept(), cut = most_weight(mass), min_p = slot->options->min_p;
	uint32_t total = 0, taken = 0, target, floor = 0;

	/* All are kept: their weight is known without a look at each. */
	if (most == s.count && min_p == 0 && s.total <= cut)
		return walk_next((uint64_t)random * s.total >> SAMPLING_COIN_BITS);
	do {
		uint32_t next = llama2_next();

		if (taken == 0)
			floor = (uint64_t)min_p * next_weight(next) >> 16;
		if (next_weight(next) < floor)
			break;
		s.weights[taken++] = next;
		total += next_weight(next);
	} while (taken < most && total < cut);
	target = (uint64_t)random * total >> SAMPLING_COIN_BITS;
	for (uint32_t i = 0; i < taken; i++) {
		if (target < next_weight(s.weights[i]))
			return next_token(s.weights[i]);
		target -= next_weight(s.weights[i]);
	}
	return next_token(s.weights[0]);
}

/* The mass that a draw is a share of; the candidates are a heap already. */
static uint64_t mass_of_draw(void)
{
	int32_t top = s.candidates[0].logit;
	int32_t fallen = s.maximum - (exp2_logit(top, slot->scale) >> 16) - 1;
	uint64_t outside, mass = 0;

	if (s.near)
		s.base = top;
	else if (!slot->penalising || fallen <= 0)
		return (int64_t)s.mass > s.lost ? s.mass - s.lost : 0;
	else
		s.reference = s.maximum - fallen;
	for (uint32_t i = 0; i < s.count; i++)
		mass += weight(s.candidates[i].logit);
	if (s.near)
		return mass;
	outside = s.mass > s.total ? s.mass - s.total : 0;
	outside <<= fallen < (int32_t)SAMPLING_OUTSIDE_SHIFT ? (uint32_t)fallen : SAMPLING_OUTSIDE_SHIFT;
	return (outside < SAMPLING_OUTSIDE_LIMIT ? outside : SAMPLING_OUTSIDE_LIMIT) + mass;
}

/* Choose among candidates whose order or weights are not the core's. */
COLD static uint32_t choose_here(void)
{
	llama2_candidates_read(s.candidates, s.count);
	penalise(s.candidates);
	for (uint32_t i = s.count / 2; i-- != 0;)
		sift(s.candidates, i, s.count);
	if (!s.drawn)
		return s.candidates[0].token;
	return truncating() ? draw_truncated(s.candidates, mass_of_draw(), coin()) :
			      draw_all(s.candidates, mass_of_draw(), coin());
}

HOT uint32_t sampler_choose(const struct llama2_result *result)
{
	s.count = result->kept < LLAMA2_MAX_CANDIDATES ? result->kept : LLAMA2_MAX_CANDIDATES;
	s.maximum = s.reference = result->maximum;
	s.near = slot->options->temperature == 0 || s.maximum <= SAMPLING_REFERENCE_LOW ||
		 s.maximum >= SAMPLING_REFERENCE_HIGH;
	s.mass = result->mass;
	s.total = result->total;
	s.drawn = slot->temperature != 0;
	llama2_candidates_select(result->column);
	if (s.near || slot->penalising)
		return choose_here();
	if (truncating())
		return next_truncated(s.mass, coin());
	return walk_next(onto_candidates(coin() * s.mass >> SAMPLING_COIN_BITS, s.mass, s.total));
}

void sampler_account(void)
{
	uint64_t dropped;

	if (!s.drawn)
		return;
	s.drawn = false;
	s.draws++;
	slot->draws++;
	if (s.near || s.mass <= s.total)
		return;
	dropped = (((s.mass - s.total) << SAMPLING_DROPPED_BITS) / s.mass) << (32 - SAMPLING_DROPPED_BITS);
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
