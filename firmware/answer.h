/* Answers to the request that is being handled. */
#pragma once

#include <stdint.h>

#include <generated/llama2_spec.h>

/* The request that the functions below answer. */
extern const struct frame_header *request;
/* Goes into every acceptance and refusal: the nonce of the first HELLO since reset; 0 before. */
extern uint32_t boot_id;

void reply(const void *payload, uint32_t bytes);
void refuse_with(enum status status, const struct wire_error *error);
void refuse(enum status status, enum subject subject, uint32_t value, uint32_t limit);
