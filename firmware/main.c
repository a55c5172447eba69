/* The firmware: bring everything up, then serve the host. */
#include "board.h"
#include "device.h"
#include "llama2.h"

int main(void)
{
	board_init();
	llama2_init();
	device_init();
	for (;;)
		device_poll();
}
