/* The firmware: bring everything up, then serve the host. */
#include "board.h"
#include "device.h"
#include "install.h"
#include "llama2.h"
#include "restart.h"

int main(void)
{
	restart_begin();
	board_alive(); /* DRAM's training, too, has to end */
	board_init();
	llama2_init();
	install_init();
	for (;;) {
		device_poll();
		restart_poll();
	}
}
