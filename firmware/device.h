/* The device as the host sees it: requests are answered and the core is fed, neither ever waiting for the other. */
#pragma once

/* Look for a model that is in DRAM already. */
void device_init(void);
/* Do what can be done now. */
void device_poll(void);
