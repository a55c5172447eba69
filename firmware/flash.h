/* The board's SPI flash: what a model may have of it, addressed from there on. Erased in sectors, written in pages. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FLASH_SECTOR 65536u
#define FLASH_PAGE 256u

/* JEDEC ID of the chip, 24 bits; 0 if there is none, or as long as it was never seen ready. */
uint32_t flash_id(void);
/* Size of the chip, as far as 24-bit addresses reach; 0 if there is none, or none that is known. */
uint32_t flash_bytes(void);
/* Bytes for a model. */
uint32_t flash_room(void);

/* An erasure or a page write is under way; nothing else may be asked meanwhile. */
bool flash_busy(void);
/* Read bytes, a multiple of 4; offset is one, too. */
void flash_read(uint32_t offset, uint32_t *words, uint32_t bytes);
/* Begin to erase the sector at offset. */
void flash_erase(uint32_t offset);
/* Begin to write a page to where it was erased, or its beginning: bytes is a multiple of 4. */
void flash_write(uint32_t offset, const uint32_t *words, uint32_t bytes);
