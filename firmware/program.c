/* The commands of one token, in the order in which docs/image.md lays out the tensors that they stream. */
#include "program.h"

#include "llama2.h"

#define BITS(name, value) ((uint32_t)(value) << LLAMA2_COMMAND_##name##_LOW)
/* Commands that depend on the position, beside the classifier's, which ends the program. */
#define PATCHED (1u << LLAMA2_OP_EMBED | 1u << LLAMA2_OP_ATTEND | 1u << LLAMA2_OP_STORE)
#define LAYER_COMMANDS 10u
#define FIRST_LAYER 2u /* after GAIN and EMBED */
#define COMMANDS (FIRST_LAYER + LAYER_COMMANDS * PROTOCOL_MAX_LAYERS + 1u)

enum { SLOT_GAIN, SLOT_EMBED };
enum { LAYER_Q, LAYER_K, LAYER_V, LAYER_ATTEND, LAYER_STORE, LAYER_GAIN_FFN, LAYER_WO, LAYER_W13, LAYER_GAIN_NEXT, LAYER_W2 };

/* A tensor of a layer, in the order of the directory, and the command that streams it. */
static const struct {
	uint8_t kind, slot, op, dest, phase, fence;
} layer_tensors[] = {
	{IMAGE_KIND_WQ, LAYER_Q, LLAMA2_OP_MATVEC, LLAMA2_DEST_Q, LLAMA2_PHASE_S1_QKV, 1},
	{IMAGE_KIND_WK, LAYER_K, LLAMA2_OP_MATVEC, LLAMA2_DEST_K, LLAMA2_PHASE_S1_QKV, 0},
	{IMAGE_KIND_WV, LAYER_V, LLAMA2_OP_MATVEC, LLAMA2_DEST_V, LLAMA2_PHASE_S1_QKV, 0},
	{IMAGE_KIND_GAIN, LAYER_GAIN_FFN, LLAMA2_OP_GAIN, 0, LLAMA2_PHASE_OTHER, 0},
	{IMAGE_KIND_WO, LAYER_WO, LLAMA2_OP_MATVEC, LLAMA2_DEST_RESIDUAL, LLAMA2_PHASE_S4_OUTPUT, 1},
	{IMAGE_KIND_W13, LAYER_W13, LLAMA2_OP_MATVEC, LLAMA2_DEST_SWIGLU, LLAMA2_PHASE_S5_GATE_UP, 1},
	{IMAGE_KIND_GAIN, LAYER_GAIN_NEXT, LLAMA2_OP_GAIN, 0, LLAMA2_PHASE_OTHER, 0},
	{IMAGE_KIND_W2, LAYER_W2, LLAMA2_OP_MATVEC, LLAMA2_DEST_RESIDUAL, LLAMA2_PHASE_S5_DOWN, 1},
};
#define LAYER_TENSORS (sizeof layer_tensors / sizeof layer_tensors[0])

static struct {
	struct program_shape shape;
	struct llama2_command commands[COMMANDS];
	uint32_t count;      /* commands of a step that classifies */
	uint32_t tensors;    /* tensors that have come */

	struct program_step step;
	uint32_t at;         /* next command */
	uint32_t column;     /* next column of a command that is per column */
	uint32_t row;        /* first beat of the step's row in layer 0's segment, counted from kv_base */
} program;

static void fill(uint32_t slot, uint32_t word0, const struct image_entry *entry)
{
	struct llama2_command *command = &program.commands[slot];

	command->words[0] = word0 | BITS(Q4, entry->format == IMAGE_FORMAT_Q4) | BITS(GROUP64, entry->group == 64) |
			    BITS(EXPONENT, (uint8_t)entry->exponent);
	command->words[1] = BITS(ROWS, entry->rows) | BITS(WORDS, entry->words);
	command->words[2] = BITS(BASE, entry->offset_beats);
	command->words[3] = BITS(BEATS, entry->beats);
}

static void fill_embed(const struct image_entry *entry)
{
	struct llama2_command *command = &program.commands[SLOT_EMBED];

	fill(SLOT_EMBED, BITS(OPCODE, LLAMA2_OP_EMBED) | BITS(PHASE, LLAMA2_PHASE_EMBED), entry);
	command->words[1] = BITS(WORDS, entry->words); /* rows is the token, beats the position */
	command->words[3] = 0;
}

static void fill_cache(uint32_t layer)
{
	struct llama2_command *attend = &program.commands[FIRST_LAYER + layer * LAYER_COMMANDS + LAYER_ATTEND];
	struct llama2_command *store = attend + 1;
	uint32_t segment = program.shape.kv_base + layer * program.shape.seq_len * program.shape.row_beats;

	/* Attention has the rows on chip: their way to DRAM is nobody's wait. */
	*store = (struct llama2_command){{BITS(OPCODE, LLAMA2_OP_STORE) |
		BITS(PHASE, LLAMA2_PHASE_S3_STORE), 0, segment, 0}};
	*attend = (struct llama2_command){{BITS(OPCODE, LLAMA2_OP_ATTEND) | BITS(KV, 1) |
		BITS(PHASE, LLAMA2_PHASE_S2_ATTEND), 0, segment, 0}};
}

void program_begin(const struct program_shape *shape)
{
	program.shape = *shape;
	program.count = FIRST_LAYER + shape->n_layers * LAYER_COMMANDS + 1;
	program.tensors = 0;
	for (uint32_t layer = 0; layer < shape->n_layers; layer++)
		fill_cache(layer);
}

/* The tensor of a layer, or false. */
static bool layer_tensor(const struct image_entry *entry, uint32_t index)
{
	uint32_t layer = index / LAYER_TENSORS;
	uint32_t i = index % LAYER_TENSORS;
	uint32_t slot = FIRST_LAYER + layer * LAYER_COMMANDS + layer_tensors[i].slot;

	if (entry->kind != layer_tensors[i].kind)
		return false;
	fill(slot, BITS(OPCODE, layer_tensors[i].op) | BITS(DEST, layer_tensors[i].dest) |
	     BITS(PHASE, layer_tensors[i].phase) | BITS(FENCE, layer_tensors[i].fence), entry);
	return true;
}

bool program_tensor(const struct image_entry *entry)
{
	uint32_t index = program.tensors++;
	uint32_t layers = program.shape.n_layers * LAYER_TENSORS;

	if (index == 0) {
		fill(SLOT_GAIN, BITS(OPCODE, LLAMA2_OP_GAIN) | BITS(PHASE, LLAMA2_PHASE_OTHER), entry);
		return entry->kind == IMAGE_KIND_GAIN;
	}
	if (index <= layers)
		return layer_tensor(entry, index - 1);
	if (index == layers + 1) {
		fill(program.count - 1, BITS(OPCODE, LLAMA2_OP_MATVEC) | BITS(DEST, LLAMA2_DEST_LOGITS) |
		     BITS(PHASE, LLAMA2_PHASE_CLASSIFY) | BITS(FENCE, 1), entry);
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

void program_start(const struct program_step *step)
{
	program.step = *step;
	program.at = 0;
	program.column = 0;
	program.row = step->position * program.shape.row_beats;
}

void program_token(uint32_t token)
{
	program.step.tokens[0] = token;
	program.step.known = true;
}

/* Push a command whose words depend on the position; one per column where there is a column field. */
static void push_patched(const uint32_t *words)
{
	const struct program_step *step = &program.step;
	uint32_t word0 = words[0] | BITS(COLUMNS, step->columns - 1);
	uint32_t op = word0 & LLAMA2_COMMAND_OPCODE_MASK;
	uint32_t column = program.column;

	if (op == LLAMA2_OP_EMBED) {
		word0 |= BITS(COLUMN, column) | BITS(ARGMAX, step->argmax) | BITS(FENCE, column == 0);
		llama2_push(word0, words[1] | (step->argmax ? 0 : BITS(ROWS, step->tokens[column])), words[2], step->position);
	} else if (op == LLAMA2_OP_ATTEND) {
		/* The first column waits for every column's query; then all are there. */
		llama2_push(word0 | BITS(COLUMN, column) | BITS(FENCE, column == 0), BITS(ROWS, step->position), words[2],
			    program.row);
	} else if (op == LLAMA2_OP_STORE) {
		llama2_push(word0, words[1], words[2] + program.row, words[3]);
	} else {
		llama2_push(word0 | BITS(ARGMAX, step->every) | BITS(KEEP, step->keep) | BITS(DUMP, step->dump), words[1],
			    words[2], words[3]);
	}
	if ((op != LLAMA2_OP_EMBED && op != LLAMA2_OP_ATTEND) || column + 1 == step->columns) {
		program.column = 0;
		program.at++;
	} else {
		program.column = column + 1;
	}
}

/* Push up to room commands that are the same at every position; returns how many there were. */
static uint32_t push_fixed(uint32_t room)
{
	uint32_t count = program.count - 1;
	uint32_t columns = BITS(COLUMNS, program.step.columns - 1);
	uint32_t at = program.at;
	uint32_t end = count - at < room ? count : at + room;

	for (; at != end; at++) {
		const uint32_t *words = program.commands[at].words;
		uint32_t word0 = words[0];

		if (PATCHED >> (word0 & LLAMA2_COMMAND_OPCODE_MASK) & 1)
			break;
		llama2_push(word0 | columns, words[1], words[2], words[3]);
	}
	end = at - program.at;
	program.at = at;
	return end;
}

bool program_push(void)
{
	uint32_t count = program.step.classify ? program.count : program.count - 1;
	uint32_t room = llama2_queue_free();

	while (room != 0 && program.at != count) {
		uint32_t pushed = push_fixed(room);

		if (pushed == 0) {
			if (program.at == SLOT_EMBED && !program.step.known)
				return false;
			push_patched(program.commands[program.at].words);
			pushed = 1;
		}
		room -= pushed;
	}
	return program.at == count;
}
