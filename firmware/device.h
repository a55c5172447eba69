/* The device as the host sees it: requests are answered and the core is fed, neither ever waiting for the other. */
#pragma once

/* Do what can be done now. */
void device_poll(void);
