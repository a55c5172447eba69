/* Test firmware for the SoC around the core: echoes bytes, adds up DRAM through the stub core, reads DRAM.
 * Requests: 'e' n[4] and n bytes: the bytes come back. 's' base[4] beats[4] target[4]: sum[4] interrupts[4].
 * 'r' address[4]: word[4]. 'c': cycles[4]. Little-endian. */
#include <stdint.h>
#include <irq.h>
#include <system.h>
#include <liblitedram/sdram.h>
#include <generated/csr.h>
#include <generated/mem.h>
#include <generated/soc.h>

#define COMMAND ((volatile uint32_t *)LLAMA2_BASE)
#define RESULT ((volatile uint32_t *)(LLAMA2_BASE + 0x400))

static volatile uint32_t interrupts;

static void take_result(void)
{
	interrupts++;
	RESULT[0] = 0;
}

int main(void);

static uint8_t get(void)
{
	uint8_t byte;
	while (uart_rxempty_read())
		;
	byte = uart_rxtx_read();
	uart_ev_pending_write(2);
	return byte;
}

static void put(uint8_t byte)
{
	while (uart_txfull_read())
		;
	uart_rxtx_write(byte);
}

static uint32_t get_word(void)
{
	uint32_t word = 0;
	for (int i = 0; i < 4; i++)
		word |= (uint32_t)get() << 8 * i;
	return word;
}

static void put_word(uint32_t word)
{
	for (int i = 0; i < 4; i++)
		put(word >> 8 * i);
}

static void sum(void)
{
	uint32_t before = interrupts;
	for (int i = 0; i < 3; i++)
		COMMAND[i] = get_word();
	COMMAND[3] = 0;
	while (interrupts == before)
		;
	put_word(llama2_crc_read());
	put_word(interrupts);
}

int main(void)
{
	uint32_t n;

	sdram_init();
	llama2_control_write(1 << CSR_LLAMA2_CONTROL_IRQ_ENABLE_OFFSET);
	llama2_ev_enable_write(1);
	irq_attach(LLAMA2_INTERRUPT, take_result);
	irq_setmask(1 << LLAMA2_INTERRUPT);
	irq_setie(1);
	for (;;) {
		switch (get()) {
		case 'e':
			for (n = get_word(); n; n--)
				put(get());
			break;
		case 's':
			sum();
			break;
		case 'r':
			n = get_word();
			flush_cpu_dcache();
			flush_l2_cache();
			put_word(*(volatile uint32_t *)(MAIN_RAM_BASE + n));
			break;
		case 'c':
			put_word(llama2_cycles_read());
			break;
		}
	}
}
