/* Aborts where the firmware does what it must not. */
#pragma once

/* Look at every command to the core from now on, and forget half a reply. */
void judge_begin(void);
/* Take what the device has sent. */
void judge_replies(void);
