// LiteX simulation module: a serial NOR flash on the SoC's pins, bit by bit (SPI mode 0).
//
// The environment variable SIM_FLASH names the file with its content. Changes are written back at once, so that a
// flash outlives a simulation; without a file the flash starts erased. The chip is as large as the file.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "error.h"
#include "modules.h"

#include "flash_chip.h"
#include "pin.h"

#define SIZE (16u << 20)        // bytes, of a chip without a file

struct session {
	struct flash_chip chip;
	clk_edge_state_t edge;
	uint8_t *sys_clk, *cs_n, *clk, *mosi, *miso;
	bool clocked;           // level of clk at the last tick
	unsigned bit, in;
	uint8_t out;
};

static int flash_tick(void *session, uint64_t time_ps)
{
	struct session *s = session;

	(void)time_ps;
	if (!clk_pos_edge(&s->edge, *s->sys_clk))
		return RC_OK;
	if (*s->cs_n == s->chip.selected) {
		flash_chip_select(&s->chip, !*s->cs_n);
		s->bit = s->in = 0;
		s->out = flash_chip_out(&s->chip);
	}
	if (s->chip.selected && *s->clk && !s->clocked) {
		s->in = s->in << 1 | *s->mosi;
		if (++s->bit == 8)
			flash_chip_in(&s->chip, s->in);
	} else if (s->chip.selected && !*s->clk && s->clocked) {
		s->out <<= 1;
		if (s->bit == 8) {
			s->bit = s->in = 0;
			s->out = flash_chip_out(&s->chip);
		}
	}
	s->clocked = *s->clk;
	*s->miso = s->out >> 7;
	return RC_OK;
}

static int flash_start(void *event_base)
{
	(void)event_base;
	return RC_OK;
}

static int flash_new(void **session, char *args)
{
	struct session *s = calloc(1, sizeof *s);
	const char *name = getenv("SIM_FLASH");
	struct stat stat = {.st_size = SIZE};
	int fd = name ? open(name, O_RDWR) : -1;

	(void)args;
	*session = s;
	if (!s)
		return RC_NOENMEM;
	if (name && (fd < 0 || fstat(fd, &stat) < 0)) {
		perror(name);
		return RC_ERROR;
	}
	s->chip.size = stat.st_size;
	s->chip.bytes =
	    mmap(NULL, s->chip.size, PROT_READ | PROT_WRITE, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
	if (s->chip.bytes == MAP_FAILED || s->chip.size & (s->chip.size - 1)) {
		fprintf(stderr, "%s: the size of a flash is a power of two\n", name ? name : "flash");
		return RC_ERROR;
	}
	if (fd < 0)
		memset(s->chip.bytes, 0xff, s->chip.size);
	s->chip.id[0] = 0x20;
	s->chip.id[1] = 0xba;
	while (s->chip.size > 1u << s->chip.id[2])
		s->chip.id[2]++;
	return RC_OK;
}

static int flash_add_pads(void *session, struct pad_list_s *list)
{
	struct session *s = session;

	if (!strcmp(list->name, "spiflash")) {
		s->cs_n = find_pad(list, "cs_n");
		s->clk = find_pad(list, "clk");
		s->mosi = find_pad(list, "mosi");
		s->miso = find_pad(list, "miso");
	} else if (!strcmp(list->name, "sys_clk")) {
		s->sys_clk = find_pad(list, "sys_clk");
	}
	return RC_OK;
}

static struct ext_module_s module = {
	.name = "spi_flash",
	.start = flash_start,
	.new_sess = flash_new,
	.add_pads = flash_add_pads,
	.tick = flash_tick,
};

int litex_sim_ext_module_init(int (*register_module)(struct ext_module_s *))
{
	return register_module(&module);
}
