/* The commands of one token, in the order in which docs/image.md lays out the tensors that they stream. */
#include "program.h"

#include "hot.h"
#include "llama2.h"

#define BITS(name, value) ((uint32_t)(value) << LLAMA2_COMMAND_##name##_LOW)

enum {
	AT_GAIN,
	AT_EMBED,
	AT_LAYERS,
};

/* The commands of a layer, see spec/llama2_spec/program.py: what each has in common, whichever layer and columns it is
 * for. Those that stream a tensor do so in the order of the directory. */
static const struct item {
	uint32_t word0;
	uint8_t per, streams, kind;
} layer_commands[] = {
#define ROW(op, dest, phase, fence, per, streams, kind) \
	{BITS(OPCODE, op) | BITS(DEST, dest) | BITS(PHASE, phase) | BITS(FENCE, fence), per, streams, kind}
	PROGRAM_LAYER(ROW)
#undef ROW
};
#define LAYER_COMMANDS PROGRAM_LAYER_COMMANDS
#define LAYER_TENSORS PROGRAM_LAYER_TENSORS

/* What a layer's tensor does not have in common with that of the other layers. */
struct tensor {
	uint32_t base;
	/* BEATS below, EXPONENT in its place, between them the flags, FLAG_SHIFT above theirs. */
	uint32_t beats_and_flags;
};
#define BEATS_SIZE 22
#define MAX_BEATS ((1u << BEATS_SIZE) - 1u)
#define FLAG_SHIFT (BEATS_SIZE - LLAMA2_COMMAND_Q4_LOW)
#define FLAG(name, value) (BITS(name, value) << FLAG_SHIFT)
_Static_assert(LLAMA2_COMMAND_BEATS_LOW == 0 && LLAMA2_COMMAND_GROUP64_LOW == LLAMA2_COMMAND_Q4_LOW + 1 &&
		   LLAMA2_COMMAND_EXPONENT_LOW == BEATS_SIZE + 2,
	       "what a tensor needs fits a word");

static struct {
	struct program_shape shape;
	struct llama2_command gain, embed, classify;
	uint32_t words1[LAYER_TENSORS]; /* ROWS and WORDS of each tensor of a layer */
	struct tensor layers[PROTOCOL_MAX_LAYERS * LAYER_TENSORS];
	uint32_t count;      /* commands of a step that classifies */
	uint32_t tensors;    /* tensors that have come */

	const struct program_step *step; /* the caller's */
	uint32_t at;         /* next command */
	const struct item *item;     /* the next layer's command's, */
	const struct tensor *tensor; /* and the tensor that comes next */
	const uint32_t *word1;       /* and its ROWS and WORDS */
	uint32_t column;     /* next column of a command that is per column or run */
	uint32_t offset;     /* from a slot's first beat to that of the layer's rows */
	struct run {
		uint32_t first, last; /* columns */
		uint32_t base;        /* first beat of its slot */
		uint32_t beats;       /* of the rows before the run's own */
	} runs[PROGRAM_MAX_COLUMNS]; /* by first column */
	uint8_t run_of[PROGRAM_MAX_COLUMNS]; /* first column of a column's run */
} program;

RARE static struct llama2_command command(uint32_t word0, const struct image_entry *entry)
{
	return (struct llama2_command){{word0 | BITS(Q4, entry->format == IMAGE_FORMAT_Q4) |
					    BITS(GROUP64, entry->group == 64) |
					    BITS(EXPONENT, (uint8_t)entry->exponent),
					BITS(ROWS, entry->rows) | BITS(WORDS, entry->words),
					BITS(BASE, entry->offset_beats), BITS(BEATS, entry->beats)}};
}

RARE static void fill_embed(const struct image_entry *entry)
{
	program.embed = command(BITS(OPCODE, LLAMA2_OP_EMBED) | BITS(PHASE, LLAMA2_PHASE_EMBED), entry);
	program.embed.words[1] = BITS(WORDS, entry->words); /* without its token; the position comes with the step */
}

void program_begin(const struct program_shape *shape)
{
	program.shape = *shape;
	program.count = AT_LAYERS + shape->n_layers * LAYER_COMMANDS + 1;
	program.tensors = 0;
}

/* The kind of a layer's i-th tensor. */
RARE static uint8_t tensor_kind(uint32_t i)
{
	const struct item *item = layer_commands;

	while (!item->streams || i-- != 0)
		item++;
	return item->kind;
}

/* The tensor of a layer, or false. */
RARE static bool layer_tensor(const struct image_entry *entry, uint32_t index)
{
	uint32_t i = index % LAYER_TENSORS, word1 = BITS(ROWS, entry->rows) | BITS(WORDS, entry->words);

	if (entry->kind != tensor_kind(i) || entry->beats > MAX_BEATS ||
	    (index >= LAYER_TENSORS && word1 != program.words1[i]))
		return false;
	program.words1[i] = word1;
	program.layers[index] = (struct tensor){entry->offset_beats,
						entry->beats | FLAG(Q4, entry->format == IMAGE_FORMAT_Q4) |
						    FLAG(GROUP64, entry->group == 64) |
						    BITS(EXPONENT, (uint8_t)entry->exponent)};
	return true;
}

RARE bool program_tensor(const struct image_entry *entry)
{
	uint32_t index = program.tensors++;
	uint32_t layers = program.shape.n_layers * LAYER_TENSORS;

	if (index == 0) {
		program.gain = command(BITS(OPCODE, LLAMA2_OP_GAIN) | BITS(PHASE, LLAMA2_PHASE_OTHER), entry);
		return entry->kind == IMAGE_KIND_GAIN;
	}
	if (index <= layers)
		return layer_tensor(entry, index - 1);
	if (index == layers + 1) {
		program.classify = command(BITS(OPCODE, LLAMA2_OP_MATVEC) | BITS(DEST, LLAMA2_DEST_LOGITS) |
					       BITS(PHASE, LLAMA2_PHASE_CLASSIFY) | BITS(FENCE, 1),
					   entry);
		fill_embed(entry); /* unless an embedding of its own follows */
		return entry->kind == IMAGE_KIND_CLASSIFIER;
	}
	fill_embed(entry);
	return index == layers + 2 && entry->kind == IMAGE_KIND_EMBEDDING;
}

bool program_complete(bool tied)
{
	return program.tensors == 1 + program.shape.n_layers * LAYER_TENSORS + (tied ? 1 : 2);
}

/* Neighbouring columns of one slot are a run. */
static void find_runs(const struct program_step *step)
{
	for (uint32_t i = 0; i < step->count; i++) {
		const struct program_column *column = &step->columns[i];

		if (i != 0 && column->segment == column[-1].segment) {
			program.run_of[i] = program.run_of[i - 1];
		} else {
			program.run_of[i] = i;
			program.runs[i].first = i;
			program.runs[i].base = program.shape.kv_base + column->segment;
			program.runs[i].beats = column->position * program.shape.row_beats;
		}
		program.runs[program.run_of[i]].last = i;
	}
}

void program_slots(uint32_t seq_len)
{
	program.shape.seq_len = seq_len;
}

void program_start(const struct program_step *step)
{
	program.step = step;
	program.at = program.column = program.offset = 0;
	program.item = layer_commands;
	program.word1 = program.words1;
	program.tensor = program.layers;
	find_runs(step);
}

/* True after the last of a command that is pushed several times; otherwise the next one is for this column. */
static bool columns_done(uint32_t next)
{
	program.column = next;
	if (next != program.step->count)
		return false;
	program.column = 0;
	return true;
}

static bool push_embed(uint32_t columns)
{
	const struct program_step *step = program.step;
	const uint32_t *words = program.embed.words;
	uint32_t column = program.column;

	llama2_push(words[0] | columns | BITS(COLUMN, column) | BITS(LAST_TOKEN, step->argmax) |
			BITS(AWAITED, step->awaited >> column & 1) | BITS(FENCE, column == 0),
		    words[1] | BITS(TOKEN, step->columns[column].token), words[2],
		    BITS(POSITION, step->columns[column].position));
	return columns_done(column + 1);
}

/* A column attends over the rows of its slot: those in DRAM, then those of its run. */
static bool push_attend(uint32_t word0)
{
	uint32_t column = program.column;
	const struct run *run = &program.runs[program.run_of[column]];

	llama2_push(word0 | BITS(KV, 1) | BITS(COLUMN, column),
		    BITS(FIRST, run->first) | BITS(ROWS, program.step->columns[column].position + 1),
		    run->base + program.offset, run->beats);
	return columns_done(column + 1);
}

static bool push_store(uint32_t word0)
{
	const struct run *run = &program.runs[program.column];

	llama2_push(word0 | BITS(COLUMN, run->last), BITS(FIRST, run->first), run->base + program.offset + run->beats,
		    0);
	return columns_done(run->last + 1);
}

/* A layer's command; true unless it needs another one, for the next columns. */
static bool push_layer(uint32_t columns)
{
	const struct item *item = program.item;
	uint32_t word0 = item->word0 | columns, flags;
	const struct tensor *tensor;

	if (item->per != PROGRAM_PER_STEP) {
		if (program.column != 0)
			word0 &= ~BITS(FENCE, 1);
		return item->per == PROGRAM_PER_COLUMN ? push_attend(word0) : push_store(word0);
	}
	tensor = program.tensor++;
	flags = tensor->beats_and_flags;
	llama2_push(word0 | (flags & BITS(EXPONENT, 0xff)) | (flags >> FLAG_SHIFT & (BITS(Q4, 1) | BITS(GROUP64, 1))),
		    *program.word1++, tensor->base, flags & MAX_BEATS);
	return true;
}

static void next_layer_command(void)
{
	if (++program.item != &layer_commands[LAYER_COMMANDS])
		return;
	program.item = layer_commands;
	program.word1 = program.words1;
	program.offset += program.shape.seq_len * program.shape.row_beats;
}

bool program_push(bool classifier)
{
	const struct program_step *step = program.step;
	uint32_t count = step->classify ? program.count : program.count - 1;
	uint32_t columns = BITS(COLUMNS, step->count - 1);

	for (uint32_t room = llama2_queue_free(); room != 0 && program.at != count; room--) {
		const uint32_t *words;

		if (program.at == AT_GAIN) {
			words = program.gain.words;
			llama2_push(words[0] | columns, words[1], words[2], words[3]);
		} else if (program.at == AT_EMBED) {
			if (!push_embed(columns))
				continue;
		} else if (program.at != program.count - 1) {
			if (!push_layer(columns))
				continue;
			next_layer_command();
		} else if (!classifier) {
			return false;
		} else {
			words = program.classify.words;
			llama2_push(words[0] | columns | BITS(COLUMN, step->first) | BITS(KEEP, step->keep) |
					BITS(DUMP, step->dump),
				    words[1], words[2], words[3]);
		}
		program.at++;
	}
	return program.at == count;
}
