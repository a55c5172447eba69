/* Where code lies that runs between a result and the next token. */
#pragma once

/* The instruction cache maps an address to one line. What is marked lies side by side, so that it does not evict
 * itself; what it calls elsewhere is marked COLD, so that it does not lie between, and is made small. */
#ifdef __riscv
#define HOT __attribute__((noinline, section(".text.hot")))
#else
#define HOT
#endif
#define COLD __attribute__((noinline, cold))
/* What runs when a model is installed: small rather than fast. */
#define RARE __attribute__((cold))
