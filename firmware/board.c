/* LiteX's side of board.h: UART by polling its CSRs, LiteDRAM's initialisation, caches, and the interrupt vector. */
#include <generated/csr.h>
#include <generated/mem.h>
#include <generated/soc.h>
#include <generated/sdram_phy.h>
#include <irq.h>
#include <liblitedram/accessors.h>
#include <liblitedram/sdram.h>
#include <stdio.h>
#include <system.h>

#include "board.h"
#include "dram.h"
#include "llama2.h"
#include "restart.h"

#define UART_EV_RX 2u

#define UART_CLOCKS 16u /* least clocks per bit that the receiver samples well */

static bool dram_ok;
static uint32_t baud, baud_first;

/* Called by crt0's trap entry. */
void isr(void);

#ifndef CSR_TIMER0_BASE
/* Called by LiteX's libraries. */
void timer0_load_write(uint32_t cycles);
uint32_t timer0_value_read(void);
void timer0_en_write(uint32_t enable);
void timer0_reload_write(uint32_t cycles);
void timer0_update_value_write(uint32_t update);
#endif

/* A trap is a bug, or a fault of the hardware; an interrupt's cause has the sign bit as well. The watchdog interrupts
 * who waits for something that does not come. */
void isr(void)
{
	uint32_t cause = csrr(mcause);

	if (cause < PROTOCOL_TRAP_CAUSES)
		restart(RESTART_TRAP + cause, csrr(mepc));
	if (irq_pending() & irq_getmask() & (1u << CTRL_INTERRUPT))
		restart(llama2_busy() ? RESTART_CORE : RESTART_WATCHDOG, csrr(mepc));
	if (irq_pending() & irq_getmask() & (1u << LLAMA2_INTERRUPT))
		llama2_interrupt();
}

/* The tuning word is what LiteX's UART adds to 32 bits in every clock; each overflow is a bit. */
static void baud_init(void)
{
#ifdef CSR_UART_PHY_TUNING_WORD_ADDR
	baud = ((uint64_t)uart_phy_tuning_word_read() * CONFIG_CLOCK_FREQUENCY + (1u << 31)) >> 32;
#endif
	baud_first = baud;
}

void board_init(void)
{
	irq_setmask(0);
	irq_setie(1);
	uart_ev_enable_write(0);
	baud_init();
	dram_ok = dram_start(DRAM_TEST_ROUNDS);
#ifdef CSR_DDRCTRL_BASE
	ddrctrl_init_error_write(!dram_ok); /* a LED shows it */
#endif
	irq_setmask(1u << LLAMA2_INTERRUPT | 1u << CTRL_INTERRUPT);
}

void board_reset(void)
{
	ctrl_reset_write(1);
	for (;;)
		;
}

void board_alive(void)
{
	ctrl_alive_write(1);
}

uint32_t board_events(void)
{
	uint32_t events = ctrl_events_read();

	if (events != 0)
		ctrl_events_write(0);
	return events;
}

/* The simulated interface may know what training would choose: taking its word spares a simulation two seconds. */
#ifdef CSR_DDRPHY_TRAINED_ADDR
static bool train_by_word(void)
{
	uint32_t word = ddrphy_trained_read();

	if (word == 0)
		return false;
	sdram_software_control_on();
	init_sequence();
	sdram_software_control_off();
	for (unsigned lane = 0; lane < board_lanes(); lane++, word >>= 8)
		board_lane_write(lane, word >> 4 & 7, word & 15);
	return true;
}
#else
static bool train_by_word(void)
{
	return false;
}
#endif

bool board_dram_train(void)
{
	return train_by_word() || sdram_init() != 0;
}

#ifdef SDRAM_PHY_READ_LEVELING_CAPABLE
uint32_t board_lanes(void)
{
	return SDRAM_PHY_MODULES;
}

uint32_t board_delays(void)
{
	return SDRAM_PHY_DELAYS;
}

uint32_t board_bitslips(void)
{
	return SDRAM_PHY_BITSLIPS;
}

void board_lane_read(uint32_t lane, uint32_t *bitslip, uint32_t *delay)
{
	*bitslip = read_dq_bitslip[lane];
	*delay = read_dq_delay[lane];
}

void board_lane_write(uint32_t lane, uint32_t bitslip, uint32_t delay)
{
	sdram_leveling_action(lane, 0, read_rst_dq_bitslip);
	while (bitslip-- != 0)
		sdram_leveling_action(lane, 0, read_inc_dq_bitslip);
	sdram_leveling_action(lane, 0, read_rst_dq_delay);
	while (delay-- != 0)
		sdram_leveling_action(lane, 0, read_inc_dq_delay);
}
#else
uint32_t board_lanes(void)
{
	return 0;
}

uint32_t board_delays(void)
{
	return 0;
}

uint32_t board_bitslips(void)
{
	return 0;
}

void board_lane_read(uint32_t lane, uint32_t *bitslip, uint32_t *delay)
{
	(void)lane;
	*bitslip = *delay = 0;
}

void board_lane_write(uint32_t lane, uint32_t bitslip, uint32_t delay)
{
	(void)lane;
	(void)bitslip;
	(void)delay;
}
#endif

void board_describe(struct wire_board *board)
{
#ifdef SDRAM_PHY_SDRAMPHYMODEL
	board->simulated = 1;
#endif
	board->pin_bytes = SDRAM_PHY_DFI_DATABITS / 8 * SDRAM_PHY_PHASES;
	board->banks = DRAM_BANKS;
	board->row_bytes = DRAM_ROW_BYTES;
}

bool board_dram_ok(void)
{
	return dram_ok;
}

uint32_t board_dram_bytes(void)
{
	return MAIN_RAM_SIZE;
}

uint32_t board_clock_hz(void)
{
	return CONFIG_CLOCK_FREQUENCY;
}

unsigned board_read(uint8_t *bytes, unsigned size)
{
	unsigned n = 0;

	while (n < size && !uart_rxempty_read()) {
		bytes[n++] = uart_rxtx_read();
		uart_ev_pending_write(UART_EV_RX);
	}
	return n;
}

unsigned board_write(const uint8_t *bytes, unsigned size)
{
	unsigned n = 0;

	while (n < size && !uart_txfull_read())
		uart_rxtx_write(bytes[n++]);
	return n;
}

bool board_sent(void)
{
	return uart_txempty_read();
}

uint32_t board_baud_first(void)
{
	return baud_first;
}

uint32_t board_baud(void)
{
	return baud;
}

uint32_t board_baud_maximum(void)
{
#ifdef CSR_UART_PHY_TUNING_WORD_ADDR
	uint32_t fastest = CONFIG_CLOCK_FREQUENCY / UART_CLOCKS;

	return fastest < PROTOCOL_MAX_BAUD ? fastest : PROTOCOL_MAX_BAUD;
#else
	return 0;
#endif
}

void board_baud_set(uint32_t rate)
{
#ifdef CSR_UART_PHY_TUNING_WORD_ADDR
	uart_phy_tuning_word_write(((uint64_t)rate << 32) / CONFIG_CLOCK_FREQUENCY);
#endif
	baud = rate;
}

#ifdef CSR_SPIFLASH_SPI_CONTROL_ADDR
uint32_t board_flash_offset(void)
{
	return FLASH_MODEL_OFFSET;
}

void board_flash_select(bool selected)
{
	spiflash_spi_cs_write(1u << CSR_SPIFLASH_SPI_CS_MODE_OFFSET | selected);
}

uint32_t board_flash_exchange(uint32_t out, unsigned bytes)
{
	spiflash_spi_mosi_write(out);
	spiflash_spi_control_write(1u << CSR_SPIFLASH_SPI_CONTROL_START_OFFSET |
				   8 * bytes << CSR_SPIFLASH_SPI_CONTROL_LENGTH_OFFSET);
	while (!(spiflash_spi_status_read() & 1u << CSR_SPIFLASH_SPI_STATUS_DONE_OFFSET))
		;
	return spiflash_spi_miso_read();
}
#else
uint32_t board_flash_offset(void)
{
	return 0;
}

void board_flash_select(bool selected)
{
	(void)selected;
}

uint32_t board_flash_exchange(uint32_t out, unsigned bytes)
{
	(void)out;
	(void)bytes;
	return ~0u;
}
#endif

uint8_t *board_dram(void)
{
	return (uint8_t *)MAIN_RAM_BASE;
}

/* The data cache writes through; only the L2 holds back. It is flushed by reading past it, so the data cache must be
 * empty: its hits never reach the L2. */
static void flush(void)
{
	flush_cpu_dcache();
	flush_l2_cache();
	flush_cpu_dcache();
}

void board_dram_publish(void)
{
	flush();
	dram_keep();
}

void board_dram_refresh(void)
{
	flush();
}

#ifndef CSR_TIMER0_BASE
/* LiteX's busy_wait, for liblitedram, loads a timer and waits until it is at zero; here it is the core's cycle counter.
 */
static uint32_t timer_end;

void timer0_load_write(uint32_t cycles)
{
	timer_end = llama2_cycles() + cycles;
}

uint32_t timer0_value_read(void)
{
	int32_t left = timer_end - llama2_cycles();

	return left > 0 ? left : 0;
}

void timer0_en_write(uint32_t enable)
{
	(void)enable;
}

void timer0_reload_write(uint32_t cycles)
{
	(void)cycles;
}

void timer0_update_value_write(uint32_t update)
{
	(void)update;
}
#endif

/* liblitedram talks while it trains; the serial line carries frames only, and printf would take 6 KiB of ROM. */
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
