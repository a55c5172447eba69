/* The baseline on the SoC: decodes what it is asked to over the UART, and says how many cycles it took.
 * Request: 'd' token[4] position[4]. Reply: status[4], and if that is 0: cycles[8] and vocab_size logits[4].
 * Little-endian. */
#include <generated/csr.h>
#include <generated/mem.h>
#include <liblitedram/sdram.h>
#include <stdio.h>

#include "decoder.h"

#define UART_EV_RX 2u
#define LOGITS_BYTES (1u << 20) /* at the end of DRAM */

static uint8_t get(void)
{
	uint8_t byte;

	while (uart_rxempty_read())
		;
	byte = uart_rxtx_read();
	uart_ev_pending_write(UART_EV_RX);
	return byte;
}

static void put_word(uint32_t word)
{
	for (unsigned i = 0; i < 4; i++) {
		while (uart_txfull_read())
			;
		uart_rxtx_write(word >> 8 * i);
	}
}

static uint32_t get_word(void)
{
	uint32_t word = 0;

	for (unsigned i = 0; i < 4; i++)
		word |= (uint32_t)get() << 8 * i;
	return word;
}

static void decode(void)
{
	uint32_t token = get_word(), position = get_word();
	int32_t *logits = (int32_t *)(MAIN_RAM_BASE + MAIN_RAM_SIZE - LOGITS_BYTES);
	enum status status = decoder_install((uint8_t *)MAIN_RAM_BASE, MAIN_RAM_SIZE - LOGITS_BYTES);
	uint32_t before;

	put_word(status);
	if (status != STATUS_OK)
		return;
	/* The core's free-running counter, which it has even when it does nothing else. */
	before = llama2_cycles_read();
	decoder_step(token, position, logits);
	put_word(llama2_cycles_read() - before);
	put_word(0);
	for (uint32_t i = 0; i < decoder_vocab_size(); i++)
		put_word(logits[i]);
}

/* liblitedram talks while it trains; nobody reads it. */
int printf(const char *format, ...)
{
	(void)format;
	return 0;
}

int puts(const char *text)
{
	(void)text;
	return 0;
}

#undef putchar
int putchar(int character)
{
	return character;
}

int main(void)
{
	uart_ev_enable_write(0);
	sdram_init();
	for (;;)
		if (get() == 'd')
			decode();
}
