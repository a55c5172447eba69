/* Rows of superblocks as spec/llama2_spec/packing.py lays them out; a pair of rows shares each activation that is
 * loaded. */
#include "matrix.h"

#include "numeric.h"

#define SCALE_MASK 0xfff
#define ZERO_LOW 12
#define PAIRS (PACKING_SUPERBLOCK / 2)
#define CHUNK_WORDS (NUMERICS_CHUNK / NUMERICS_WORD)

/* A pair of rows: its first data beat, and its two scale words of group 0; those of the next are a beat further. */
struct pair {
	const uint8_t *data;
	const uint16_t *scales;
};

static struct pair find(const struct image_entry *entry, const uint8_t *data, uint32_t pair)
{
	uint32_t groups = (entry->words * NUMERICS_WORD + entry->group - 1) / entry->group;
	uint32_t pair_bytes = entry->words * BEAT_BYTES * (entry->format == IMAGE_FORMAT_Q8 ? 2 : 1);
	const uint8_t *block = data + pair / PAIRS * (groups * BEAT_BYTES + PAIRS * pair_bytes);

	return (struct pair){block + groups * BEAT_BYTES + pair % PAIRS * pair_bytes,
			     (const uint16_t *)block + pair % PAIRS * 2};
}

/* Dot products of both rows over some words: at most 32 products of 2**7 * 2**15 each, 2**27. */
static void dot_q8(const uint8_t *data, const int16_t *x, uint32_t words, int32_t dots[2])
{
	const int8_t *w = (const int8_t *)data;
	int32_t a = 0, b = 0;

	for (; words != 0; words--, w += 2 * NUMERICS_WORD, x += NUMERICS_WORD) {
#pragma GCC unroll 4
		for (uint32_t i = 0; i < NUMERICS_WORD; i++) {
			a += w[i] * x[i];
			b += w[i + NUMERICS_WORD] * x[i];
		}
	}
	dots[0] = a;
	dots[1] = b;
}

static void dot_q4(const uint8_t *w, const int16_t *x, uint32_t words, int32_t zero0, int32_t zero1, int32_t dots[2])
{
	int32_t a = 0, b = 0;

	for (; words != 0; words--, w += NUMERICS_WORD, x += NUMERICS_WORD) {
#pragma GCC unroll 4
		for (uint32_t i = 0; i < NUMERICS_WORD; i++) {
			a += ((w[i] & 15) - zero0) * x[i];
			b += ((w[i] >> 4) - zero1) * x[i];
		}
	}
	dots[0] = a;
	dots[1] = b;
}

static void product(const struct image_entry *entry, struct pair pair, const struct vector *vector, int64_t sums[2])
{
	uint32_t chunks_per_group = entry->group / NUMERICS_CHUNK;
	uint32_t word_bytes = entry->format == IMAGE_FORMAT_Q8 ? 2 * BEAT_BYTES : BEAT_BYTES;

	sums[0] = sums[1] = 0;
	for (uint32_t word = 0, chunk = 0; word < entry->words; word += CHUNK_WORDS, chunk++) {
		uint32_t words = entry->words - word < CHUNK_WORDS ? entry->words - word : CHUNK_WORDS;
		const uint16_t *scales = pair.scales + chunk / chunks_per_group * (BEAT_BYTES / 2);
		const uint8_t *data = pair.data + word * word_bytes;
		const int16_t *x = vector->mantissas + word * NUMERICS_WORD;
		uint32_t shift = vector->largest - vector->exponents[chunk];
		int32_t dots[2];

		if (entry->format == IMAGE_FORMAT_Q8)
			dot_q8(data, x, words, dots);
		else
			dot_q4(data, x, words, scales[0] >> ZERO_LOW, scales[1] >> ZERO_LOW, dots);
		for (uint32_t i = 0; i < 2; i++)
			sums[i] += floor_shift((int64_t)dots[i] * (scales[i] & SCALE_MASK), shift);
	}
}

void matrix_product(const struct image_entry *entry, const uint8_t *data, const struct vector *vector, matrix_sink sink)
{
	int64_t sums[2];

	for (uint32_t row = 0; row < entry->rows; row += 2) {
		product(entry, find(entry, data, row / 2), vector, sums);
		sink(row, sums[0]);
		if (row + 1 != entry->rows)
			sink(row + 1, sums[1]);
	}
}

void matrix_row(const struct image_entry *entry, const uint8_t *data, uint32_t row, uint32_t n, int32_t *values)
{
	struct pair pair = find(entry, data, row / 2);
	uint32_t odd = row % 2;

	for (uint32_t i = 0; i < n; i++) {
		uint16_t scale = pair.scales[i / entry->group * (BEAT_BYTES / 2) + odd];
		uint32_t word = i / NUMERICS_WORD, at = i % NUMERICS_WORD;
		int32_t code;

		if (entry->format == IMAGE_FORMAT_Q8)
			code = ((const int8_t *)pair.data)[(2 * word + odd) * BEAT_BYTES + at];
		else
			code = (pair.data[i] >> 4 * odd & 15) - (scale >> ZERO_LOW);
		values[i] = code * (scale & SCALE_MASK);
	}
}
