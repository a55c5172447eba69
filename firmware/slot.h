/* A slot: a region of the K/V cache, the generation that runs there or ran there last, and what it remembers. The first
 * one lies in SRAM, the others in DRAM. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lookup.h"
#include "program.h"
#include "report.h"
#include "sampler.h"
#include "schedule.h"

struct slot {
	uint32_t number;
	uint32_t segment;      /* first beat of its region of the cache, from the cache's first on */
	uint32_t kv_positions; /* that the cache holds */

	bool running;
	bool known;            /* sequence is one of this session */
	uint32_t sequence;
	bool sampling;
	uint32_t ids[PROTOCOL_MAX_PROMPT];
	uint32_t prompt_count;
	uint32_t first;        /* position of the first generated token */
	uint32_t target;       /* most tokens: max_new, or what the slot has room for */

	uint32_t since;        /* when its prompt came, or when it had a column last: the number of a pass */
	uint32_t next;         /* position of the next column to be planned */
	uint32_t classified;   /* tokens that the columns planned so far will yield */
	uint32_t due;          /* results to come */
	uint32_t skip;         /* so many of them, the next ones, are no tokens */
	bool awaits;           /* a column was planned without its token, which the next result that is one will be: */
	uint8_t column;        /* this one */
	uint32_t speculate;    /* tokens to guess in a pass, at most */
	uint32_t guesses[PROGRAM_MAX_COLUMNS - 1]; /* of the pass under way, or of the next one */
	uint32_t guess_count;
	uint32_t guess_right;  /* so many of them have turned out right */
	bool proposed;         /* the guesses are those of the next pass */
	bool guessing;         /* a pass that may hold guesses is under way: nothing is planned before its results */
	struct wire_done done;
	struct wire_generate request;
	struct report report;
	struct sampler sampler;
	struct lookup lookup;
};

/* How the cache is divided. */
struct slot_division {
	uint32_t count;
	uint32_t length;       /* positions of each */
	uint32_t beats;        /* of the cache, each */
	uint32_t *history;     /* length + 1 words for each; 0: there is no room */
	struct slot *more;     /* where the second and the following ones are kept */
};

/* Totals since slot_clear of all slots: the fields of these names. */
void slot_stats(struct wire_stats *stats);
void slot_clear(void);

/* Begin anew with empty slots of a model, of whose core's columns a pass may have as many; own_candidates: each of them
 * has candidates of its own, so that several may be sampled in it. */
void slot_install(const struct slot_division *division, uint32_t vocab_size, uint32_t columns, bool own_candidates);
uint32_t slot_count(void);
uint32_t slot_length(void);
struct slot *slot_at(uint32_t number);

/* Begin a generation that was checked. */
void slot_begin(struct slot *slot, uint32_t sequence, const struct wire_generate *request, uint32_t id_count,
		uint32_t now);
/* What it could do with columns of the next pass; false: nothing, now. ahead: its next column may be planned before its
 * token is known. */
bool slot_demand(struct slot *slot, bool ahead, struct demand *demand);
/* Add columns to a pass, as many as granted; returns how many of its last ones have logits that are a token's. A token
 * that is not known yet is the last argmax, if that will be it, or awaited. */
uint32_t slot_fill(struct slot *slot, uint32_t granted, bool argmax, struct program_step *step);
/* Nothing more will be planned for a request that only fills the cache. */
bool slot_filled(const struct slot *slot);
/* A token has come: keep it, and plan on. */
void slot_token(struct slot *slot, uint32_t token, uint32_t cycles);
/* It is one of its stop tokens. */
bool slot_stops(const struct slot *slot, uint32_t token);
/* The generation is over; what of it is under way will be skipped. */
void slot_end(struct slot *slot, enum reason reason);
