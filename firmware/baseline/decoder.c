/* One token through every layer. Working buffers are static: in SRAM on the SoC, weights and cache in DRAM. */
#include "decoder.h"

#include "attention.h"
#include "functions.h"
#include "matrix.h"
#include "numeric.h"
#include "vector.h"

#define MAX_DIM 1024
#define MAX_KV_HEADS 64
#define ONE ((int64_t)1 << 15) /* in place of 1/rms, where none applies */

static struct {
	uint8_t *dram;
	const struct image_header *h;
	const struct image_entry *entries;
	uint8_t *cache;
	uint32_t row_bytes;     /* of a position of a layer */
	uint32_t head_bytes;    /* the exponents in front of a row */
} model;

static int32_t x[MAX_DIM];          /* the residual, Q16.16 */
static int32_t q[MAX_DIM];          /* rows before they are rotated, Q14.18; also K's and V's */
static struct vector normed, other; /* x^ ; attention output or hidden vector */
static uint32_t factor;             /* 1/rms */
static int factor_exponent;

/* Of the matrix being streamed, for its sink. */
static struct {
	uint32_t shift;
	int32_t *rows;
	int32_t gate;
} sink;

static const uint8_t *beats(const struct image_entry *entry)
{
	return model.dram + entry->offset_beats * BEAT_BYTES;
}

static uint32_t round_up(uint32_t n, uint32_t unit)
{
	return (n + unit - 1) / unit * unit;
}

enum status decoder_install(uint8_t *dram, uint32_t dram_bytes)
{
	const struct image_header *h = (const struct image_header *)dram;
	uint32_t kv_dim = h->n_kv_heads * h->head_dim;
	uint64_t end;

	model.h = h;
	if (*(const uint32_t *)h->magic != IMAGE_MAGIC)
		return STATUS_BAD_MAGIC;
	if (h->version != IMAGE_VERSION)
		return STATUS_BAD_VERSION;
	if (h->kv_format != IMAGE_KV_K16V16)
		return STATUS_BAD_VALUE;
	if (h->dim > MAX_DIM || h->n_heads * h->head_dim > MAX_DIM || h->hidden_dim > VECTOR_MAX ||
	    h->head_dim > ATTENTION_MAX_HEAD_DIM || h->n_kv_heads > MAX_KV_HEADS)
		return STATUS_TOO_LARGE;
	model.dram = dram;
	model.entries = (const struct image_entry *)(dram + h->entries_offset);
	model.cache = dram + round_up(h->file_bytes, IMAGE_PAYLOAD_ALIGN);
	model.head_bytes = round_up(2 * h->n_kv_heads, BEAT_BYTES);
	model.row_bytes = model.head_bytes + 4 * kv_dim;
	end = round_up(h->file_bytes, IMAGE_PAYLOAD_ALIGN) + (uint64_t)h->n_layers * h->seq_len * model.row_bytes;
	return end <= dram_bytes ? STATUS_OK : STATUS_NO_MEMORY;
}

uint32_t decoder_vocab_size(void)
{
	return model.h->vocab_size;
}

/* Rows ---------------------------------------------------------------------------------------- */

static uint32_t clamp(int shift)
{
	return shift > 0 ? shift : 0;
}

static void take_row(uint32_t row, int64_t sum)
{
	sink.rows[row] = saturate(round_shift(sum * factor, sink.shift), 32);
}

static void take_residual(uint32_t row, int64_t sum)
{
	int64_t value = saturate(round_shift(sum * ONE, sink.shift), 32);

	x[row] = saturate(x[row] + value, 32);
}

/* Rows alternate gate and up. */
static void take_gate_up(uint32_t row, int64_t sum)
{
	int32_t value = saturate(round_shift(sum * factor, sink.shift), 32);

	if (row % 2 == 0)
		sink.gate = value;
	else
		vector_push(&other, saturate(round_shift((int64_t)functions_silu(sink.gate) * value,
							 2 * NUMERICS_ROW_FRACTION - NUMERICS_HIDDEN_FRACTION),
					     NUMERICS_WIDE));
}

/* x^ times a matrix, to a sink that applies 1/rms. */
static void stream_normed(const struct image_entry *entry, matrix_sink take)
{
	sink.shift = clamp(-(normed.largest + normed.unit + entry->exponent + factor_exponent + NUMERICS_ROW_FRACTION));
	matrix_product(entry, beats(entry), &normed, take);
}

static void rows_of(const struct image_entry *entry, int32_t *rows)
{
	sink.rows = rows;
	stream_normed(entry, take_row);
}

/* x^ = x times gain, and 1/rms of x. */
static void normalise(const struct image_entry *gain)
{
	const int16_t *gains = (const int16_t *)beats(gain);
	struct wide squares = {model.h->epsilon, 0}; /* Q32.32 */

	vector_begin(&normed, gain->exponent - NUMERICS_RESIDUAL_FRACTION);
	for (uint32_t i = 0; i < model.h->dim; i++) {
		uint64_t square = (int64_t)x[i] * x[i];

		vector_push(&normed, (int64_t)x[i] * gains[i]);
		squares.low += square;
		squares.high += squares.low < square;
	}
	vector_end(&normed);
	factor = functions_rsqrt(squares, &factor_exponent);
	factor_exponent += NUMERICS_RESIDUAL_FRACTION;
}

static void residual(const struct image_entry *entry, const struct image_entry *gain)
{
	sink.shift = clamp(-(other.largest + other.unit + entry->exponent - 15 + NUMERICS_RESIDUAL_FRACTION));
	matrix_product(entry, beats(entry), &other, take_residual);
	normalise(gain);
}

/* Attention ----------------------------------------------------------------------------------- */

/* A head by RoPE, interleaved pairs: 33 bits. */
static void rotate(const int32_t *head, uint32_t position, int64_t *rotated)
{
	const uint32_t *frequencies = (const uint32_t *)(model.dram + model.h->rope_offset);

	for (uint32_t i = 0; i < model.h->head_dim / 2; i++) {
		uint32_t phase = position * frequencies[i];
		int64_t sine = functions_sine(phase), cosine = functions_sine(phase + (1u << 30));
		int32_t a = head[2 * i], b = head[2 * i + 1];

		rotated[2 * i] = round_shift(a * cosine - b * sine, 16);
		rotated[2 * i + 1] = round_shift(a * sine + b * cosine, 16);
	}
}

/* Quantise K or V, which is in q, into its place in the cache's row. */
static void store(uint8_t *row, uint32_t position, uint32_t v)
{
	uint32_t kv_heads = model.h->n_kv_heads, head_dim = model.h->head_dim;
	int16_t *mantissas = (int16_t *)(row + model.head_bytes) + v * kv_heads * head_dim;
	int64_t head[ATTENTION_MAX_HEAD_DIM];

	for (uint32_t i = 0; i < kv_heads; i++) {
		if (v)
			for (uint32_t j = 0; j < head_dim; j++)
				head[j] = q[i * head_dim + j];
		else
			rotate(q + i * head_dim, position, head);
		row[v * kv_heads + i] = vector_quantise(head, head_dim, mantissas + i * head_dim);
	}
}

/* The query, which is in q, over the layer's rows; its output goes to other. */
static void attend(uint8_t *cache, uint32_t position)
{
	uint32_t kv_heads = model.h->n_kv_heads, head_dim = model.h->head_dim;
	uint32_t repeat = model.h->n_heads / kv_heads;
	int64_t head[ATTENTION_MAX_HEAD_DIM];
	int16_t mantissas[ATTENTION_MAX_HEAD_DIM];

	vector_begin(&other, -NUMERICS_OUTPUT_FRACTION);
	for (uint32_t i = 0; i < model.h->n_heads; i++) {
		uint32_t kv = i / repeat, exponent;
		const int16_t *k = (const int16_t *)(cache + model.head_bytes) + kv * head_dim;
		struct attention_rows rows = {k, k + kv_heads * head_dim, cache + kv, cache + kv_heads + kv,
					      model.row_bytes, position + 1};

		rotate(q + i * head_dim, position, head);
		exponent = vector_quantise(head, head_dim, mantissas);
		attention(mantissas, exponent, head_dim, &rows, model.h->score_scale, head);
		for (uint32_t j = 0; j < head_dim; j++)
			vector_push(&other, head[j]);
	}
	vector_end(&other);
}

/* Token --------------------------------------------------------------------------------------- */

static void embed(uint32_t token)
{
	const struct image_entry *entry = &model.entries[model.h->entries_count - 1];
	uint32_t shift = clamp(-(entry->exponent - 15 + NUMERICS_RESIDUAL_FRACTION));

	matrix_row(entry, beats(entry), token, model.h->dim, x);
	for (uint32_t i = 0; i < model.h->dim; i++)
		x[i] = saturate(round_shift(x[i] * ONE, shift), 32);
}

/* entry: the layer's wq; its wk, wv, gain, wo, w13, gain and w2 follow. */
static void layer(const struct image_entry *entry, uint8_t *cache, uint32_t position)
{
	uint8_t *row = cache + position * model.row_bytes;

	rows_of(&entry[1], q);
	store(row, position, 0);
	rows_of(&entry[2], q);
	store(row, position, 1);
	rows_of(&entry[0], q);
	attend(cache, position);
	residual(&entry[4], &entry[3]);
	vector_begin(&other, -NUMERICS_HIDDEN_FRACTION);
	stream_normed(&entry[5], take_gate_up);
	vector_end(&other);
	residual(&entry[7], &entry[6]);
}

void decoder_step(uint32_t token, uint32_t position, int32_t *logits)
{
	const struct image_entry *entry = model.entries;
	uint8_t *cache = model.cache;

	embed(token);
	normalise(entry++);
	for (uint32_t i = 0; i < model.h->n_layers; i++, entry += 8, cache += model.h->seq_len * model.row_bytes)
		layer(entry, cache, position);
	rows_of(entry, logits);
}
