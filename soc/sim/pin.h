// A SoC's pins by their names, for the simulation modules.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modules.h"

static uint8_t *find_pad(const struct pad_list_s *list, const char *name)
{
	for (const struct pad_s *p = list->pads; p->name; p++)
		if (!strcmp(p->name, name))
			return p->signal;
	fprintf(stderr, "simulation: no pad %s in %s\n", name, list->name);
	exit(1);
}
