/* The model image at the start of DRAM: checked, then made the core's model. The core computes the CRCs, at stream
 * rate. */
#include "image.h"

#include "board.h"
#include "program.h"

#define CHECK(condition, status, subject, value, limit) \
	do { \
		if (!(condition)) { \
			*error = (struct wire_error){(subject), (value), (limit)}; \
			return (status); \
		} \
	} while (0)

static struct image_model model;

static uint32_t divide_up(uint32_t a, uint32_t b)
{
	return a / b + (a % b != 0);
}

const struct image_model *image_model(void)
{
	return &model;
}

/* The core's CRC of these bytes of the image; waits for it. */
static uint32_t crc_of(uint32_t from, uint32_t to)
{
	while (llama2_busy())
		;
	llama2_crc_begin(from / BEAT_BYTES, (to - from) / BEAT_BYTES);
	while (llama2_busy())
		;
	return llama2_crc();
}

/* The file is whole and undamaged, but for its weights. */
static enum status check_header(const struct image_header *h, uint32_t present, struct wire_error *error)
{
	const uint32_t *magic = (const uint32_t *)h->magic;
	uint32_t crc;

	CHECK(*magic == IMAGE_MAGIC, STATUS_BAD_MAGIC, SUBJECT_NONE, *magic, IMAGE_MAGIC);
	CHECK(h->version == IMAGE_VERSION, STATUS_BAD_VERSION, SUBJECT_NONE, h->version, IMAGE_VERSION);
	CHECK(h->file_bytes <= present, STATUS_INCOMPLETE, SUBJECT_NONE, present, h->file_bytes);
	CHECK(h->payload_offset % IMAGE_PAYLOAD_ALIGN == 0 && h->payload_offset >= sizeof *h &&
		  h->payload_offset <= h->file_bytes && h->file_bytes - h->payload_offset == h->payload_bytes &&
		  h->payload_bytes % BEAT_BYTES == 0,
	      STATUS_BAD_HEADER, SUBJECT_LENGTH, h->payload_bytes, h->file_bytes);
	crc = crc_of(IMAGE_CHECKED_FROM, h->payload_offset);
	CHECK(crc == h->header_crc, STATUS_BAD_HEADER, SUBJECT_NONE, crc, h->header_crc);
	return STATUS_OK;
}

/* The core can run these shapes. */
static enum status check_shapes(const struct image_header *h, const struct llama2_limits *limits,
				struct wire_error *error)
{
	const struct {
		enum subject subject;
		uint32_t value, limit;
	} maxima[] = {
		{SUBJECT_DIM, h->dim, limits->dim},
		{SUBJECT_HIDDEN_DIM, h->hidden_dim, limits->hidden_dim},
		{SUBJECT_HEAD_DIM, h->head_dim, limits->head_dim},
		{SUBJECT_HEADS, h->n_heads, limits->heads},
		{SUBJECT_KV_HEADS, h->n_kv_heads, h->n_heads},
		{SUBJECT_VOCAB_SIZE, h->vocab_size, limits->vocab_size},
		{SUBJECT_SEQ_LEN, h->seq_len, limits->seq_len},
		{SUBJECT_LAYERS, h->n_layers, PROTOCOL_MAX_LAYERS},
		{SUBJECT_DIM, h->n_heads * h->head_dim, limits->dim},
		{SUBJECT_KV_DIM, h->n_kv_heads * h->head_dim, limits->kv_dim},
	};

	for (unsigned i = 0; i < sizeof maxima / sizeof maxima[0]; i++) {
		CHECK(maxima[i].value != 0, STATUS_BAD_HEADER, maxima[i].subject, 0, maxima[i].limit);
		CHECK(maxima[i].value <= maxima[i].limit, STATUS_TOO_LARGE, maxima[i].subject, maxima[i].value,
		      maxima[i].limit);
	}
	CHECK(h->kv_format == IMAGE_KV_K16V16 || h->kv_format == IMAGE_KV_K16V8 || h->kv_format == IMAGE_KV_K8V8,
	      STATUS_BAD_VALUE, SUBJECT_KV_FORMAT, h->kv_format, IMAGE_KV_K8V8);
	CHECK(h->n_heads % h->n_kv_heads == 0, STATUS_BAD_HEADER, SUBJECT_KV_HEADS, h->n_kv_heads, h->n_heads);
	CHECK(h->head_dim % 8 == 0, STATUS_BAD_HEADER, SUBJECT_HEAD_DIM, h->head_dim, 8);
	CHECK(h->dim % NUMERICS_WORD == 0 && h->n_heads * h->head_dim % NUMERICS_WORD == 0, STATUS_BAD_HEADER,
	      SUBJECT_DIM, h->dim, NUMERICS_WORD);
	return STATUS_OK;
}

/* Beats of a cache row: the heads' exponents, then K, then V. */
static uint32_t row_beats(const struct image_header *h)
{
	uint32_t kv_dim = h->n_kv_heads * h->head_dim;
	uint32_t k_bytes = h->kv_format == IMAGE_KV_K8V8 ? 1 : 2;
	uint32_t v_bytes = h->kv_format == IMAGE_KV_K16V16 ? 2 : 1;

	return divide_up(2 * h->n_kv_heads, BEAT_BYTES) + divide_up(kv_dim * k_bytes, BEAT_BYTES) +
	       divide_up(kv_dim * v_bytes, BEAT_BYTES);
}

static uint32_t align(uint32_t bytes, uint32_t unit)
{
	return (bytes + unit - 1) & -unit;
}

enum status image_divide(uint32_t count, uint32_t length, struct wire_error *error)
{
	uint32_t present = board_dram_bytes();
	uint64_t beats = (uint64_t)(model.n_layers * model.row_beats) * (count * length);
	uint64_t cache_end = (model.kv_base + beats) * BEAT_BYTES;
	uint32_t end = cache_end <= UINT32_MAX ? (uint32_t)cache_end : UINT32_MAX;
	uint32_t history = align(end, SAMPLING_HISTORY_ALIGN);
	uint32_t more = align(history + 4 * count * (length + 1), sizeof(uint64_t));

	/* A single slot does without a history. Nothing wraps: DRAM is a quarter of the address space at most. */
	if (count != 1 && end <= present)
		end = more + (count - 1) * sizeof(struct slot);
	CHECK(end <= present, STATUS_NO_MEMORY, SUBJECT_NONE, end, present);
	model.kv_beats = beats;
	model.slots = (struct slot_division){count, length, beats / count,
					     more <= present ? (uint32_t *)(board_dram() + history) : 0,
					     (struct slot *)(board_dram() + more)};
	program_slots(length);
	return STATUS_OK;
}

/* Place the cache behind the image, as one slot. */
static enum status place_cache(const struct image_header *h, struct program_shape *shape, struct wire_error *error)
{
	uint32_t base = align(h->file_bytes, IMAGE_PAYLOAD_ALIGN) / BEAT_BYTES;

	model.n_layers = shape->n_layers = h->n_layers;
	model.row_beats = shape->row_beats = row_beats(h);
	model.kv_base = shape->kv_base = base;
	shape->seq_len = h->seq_len;
	return image_divide(1, h->seq_len, error);
}

/* Beats of a packed matrix: scales of every superblock, then its row pairs. */
static uint32_t tensor_beats(const struct image_entry *entry)
{
	uint32_t scales = divide_up(entry->words * NUMERICS_WORD, entry->group);
	uint32_t pairs = divide_up(entry->rows, 2);

	return divide_up(entry->rows, PACKING_SUPERBLOCK) * scales +
	       pairs * entry->words * (entry->format == IMAGE_FORMAT_Q8 ? 2 : 1);
}

/* The entry has the shape that its kind must have in this model, and lies within the weights. */
static bool entry_good(const struct image_header *h, const struct image_entry *entry)
{
	uint32_t q_dim = h->n_heads * h->head_dim;
	uint32_t kv_dim = h->n_kv_heads * h->head_dim;
	const uint32_t rows[] = {
		[IMAGE_KIND_GAIN] = h->dim,
		[IMAGE_KIND_WQ] = q_dim,
		[IMAGE_KIND_WK] = kv_dim,
		[IMAGE_KIND_WV] = kv_dim,
		[IMAGE_KIND_WO] = h->dim,
		[IMAGE_KIND_W13] = 2 * h->hidden_dim,
		[IMAGE_KIND_W2] = h->dim,
		[IMAGE_KIND_CLASSIFIER] = h->vocab_size,
		[IMAGE_KIND_EMBEDDING] = h->vocab_size,
	};
	uint32_t columns =
	    entry->kind == IMAGE_KIND_WO ? q_dim : (entry->kind == IMAGE_KIND_W2 ? h->hidden_dim : h->dim);
	uint32_t first = h->payload_offset / BEAT_BYTES;
	uint32_t end = h->file_bytes / BEAT_BYTES;

	if (entry->kind > IMAGE_KIND_EMBEDDING || entry->rows != rows[entry->kind])
		return false;
	if (entry->offset_beats < first || entry->offset_beats > end || entry->beats > end - entry->offset_beats)
		return false;
	if (entry->kind == IMAGE_KIND_GAIN)
		return entry->words == divide_up(2 * h->dim, BEAT_BYTES) && entry->beats == entry->words;
	return entry->format <= IMAGE_FORMAT_Q4 && (entry->group == 32 || entry->group == 64) &&
	       entry->words == divide_up(columns, NUMERICS_WORD) && entry->beats == tensor_beats(entry);
}

static enum status read_directory(const struct image_header *h, const struct program_shape *shape,
				  struct wire_error *error)
{
	const struct image_entry *entries = (const struct image_entry *)(board_dram() + h->entries_offset);

	CHECK(h->entries_offset % 4 == 0 && h->entries_offset <= h->payload_offset &&
		  h->entries_count <= (h->payload_offset - h->entries_offset) / sizeof *entries,
	      STATUS_BAD_DIRECTORY, SUBJECT_LENGTH, h->entries_count, h->payload_offset / sizeof *entries);
	program_begin(shape);
	for (uint32_t i = 0; i < h->entries_count; i++)
		CHECK(entry_good(h, &entries[i]) && program_tensor(&entries[i]), STATUS_BAD_DIRECTORY, SUBJECT_NONE, i,
		      h->entries_count);
	CHECK(program_complete(h->tied), STATUS_BAD_DIRECTORY, SUBJECT_NONE, h->entries_count, h->entries_count);
	return STATUS_OK;
}

static enum status write_constants(const struct image_header *h, struct wire_error *error)
{
	const uint32_t *rope = (const uint32_t *)(board_dram() + h->rope_offset);

	CHECK(h->rope_offset % 4 == 0 && h->rope_offset <= h->payload_offset &&
		  h->head_dim * 2 <= h->payload_offset - h->rope_offset,
	      STATUS_BAD_HEADER, SUBJECT_LENGTH, h->rope_offset,
	      h->payload_offset);
	llama2_model_write(LLAMA2_MODEL_DIM, h->dim);
	llama2_model_write(LLAMA2_MODEL_HEAD_DIM, h->head_dim);
	llama2_model_write(LLAMA2_MODEL_N_HEADS, h->n_heads);
	llama2_model_write(LLAMA2_MODEL_N_KV_HEADS, h->n_kv_heads);
	llama2_model_write(LLAMA2_MODEL_EPSILON, h->epsilon);
	llama2_model_write(LLAMA2_MODEL_SCORE_SCALE, h->score_scale);
	llama2_model_write(LLAMA2_MODEL_POSITIONS, h->seq_len);
	llama2_model_write(LLAMA2_MODEL_KV_FORMAT, h->kv_format);
	for (uint32_t i = 0; i < h->head_dim / 2; i++)
		llama2_rope_write(i, rope[i]);
	return STATUS_OK;
}

static void describe(const struct image_header *h)
{
	const uint8_t *name = board_dram() + h->provenance_offset;
	uint32_t n = 0;

	model.bytes = h->file_bytes;
	model.header_crc = h->header_crc;
	model.payload_crc = h->payload_crc;
	model.vocab_size = h->vocab_size;
	model.seq_len = h->seq_len;
	if (h->provenance_offset <= h->payload_offset &&
	    h->provenance_bytes <= h->payload_offset - h->provenance_offset)
		for (; n < sizeof model.name && n < h->provenance_bytes && name[n] != '\n'; n++)
			model.name[n] = name[n];
	while (n < sizeof model.name)
		model.name[n++] = 0;
}

enum status image_begin(const struct llama2_limits *limits, uint32_t present, struct wire_error *error)
{
	const struct image_header *h = (const struct image_header *)board_dram();
	struct program_shape shape = {.columns = limits->columns};
	enum status status = check_header(h, present, error);

	if (status == STATUS_OK)
		status = check_shapes(h, limits, error);
	if (status == STATUS_OK)
		status = place_cache(h, &shape, error);
	if (status == STATUS_OK)
		status = read_directory(h, &shape, error);
	if (status == STATUS_OK)
		status = write_constants(h, error);
	if (status == STATUS_OK)
		llama2_crc_begin(h->payload_offset / BEAT_BYTES, h->payload_bytes / BEAT_BYTES);
	return status;
}

enum status image_verify(struct wire_error *error)
{
	const struct image_header *h = (const struct image_header *)board_dram();
	enum status status;

	board_dram_refresh();
	status = check_header(h, model.bytes, error);
	if (status != STATUS_OK)
		return status;
	/* Whole, but is it the one that was installed? */
	CHECK(h->header_crc == model.header_crc, STATUS_BAD_HEADER, SUBJECT_NONE, h->header_crc, model.header_crc);
	llama2_crc_begin(h->payload_offset / BEAT_BYTES, h->payload_bytes / BEAT_BYTES);
	return STATUS_OK;
}

enum status image_end(struct wire_error *error)
{
	const struct image_header *h = (const struct image_header *)board_dram();
	uint32_t crc = llama2_crc();

	CHECK(crc == h->payload_crc, STATUS_BAD_PAYLOAD, SUBJECT_NONE, crc, h->payload_crc);
	describe(h);
	return STATUS_OK;
}
