# Compiles a generated SoC into Vsim, in place of LiteX's simulation Makefile: the model itself at -O3 for this processor, in two jobs, and with
# tracing only on request. Run in the gateware directory with VERILOG (all sources, relative), MODULES (LiteX simulation modules), VERILATOR
# (its command), VARIABLES (for its makefile), and three paths without spaces: DIR, to this directory, SRC_DIR, to LiteX's
# simulator, and HERE, to ours. TRACE=1 makes a Vsim that can write waveforms; COUNTS are
# flags for a profile, LINK_COUNTS those of them that the linker needs.

OBJ    := obj_sim
CORE   := sim pads parse modules libdylib
LIBS   := -levent -ljson-c -ldl -lz -lm -lpthread
MODEL  ?= $(if $(TRACE),-O1,-O3 -march=native)
VFLAGS ?= -O3 --x-assign fast --x-initial fast --noassert --output-split 20000 --unroll-count 256

all: $(MODULES:%=modules/%.so) vsim

modules/%.so: $(HERE)/*.c $(HERE)/*.h
	mkdir -p modules
	$(CC) -O3 -Wall -fPIC -shared -I$(SRC_DIR) -o $@ \
		$(firstword $(wildcard $(HERE)/$*.c $(SRC_DIR)/modules/$*/$*.c)) -ljson-c

$(OBJ)/%.o: $(SRC_DIR)/%.c
	mkdir -p $(OBJ)
	$(CC) -c -O3 -w -I$(SRC_DIR) -o $@ $<

$(OBJ)/Vsim.mk: $(VERILOG) sim_init.cpp $(HERE)/harness.cpp $(CORE:%=$(OBJ)/%.o)
	$(VERILATOR) --cc --exe --top-module sim --Mdir $(OBJ) -Wno-fatal -Wno-lint -Wno-style $(VFLAGS) -DPRINTF_COND=0 \
		$(if $(TRACE),--trace-fst) $(VERILOG) $(DIR)/sim_init.cpp $(HERE)/harness.cpp $(CORE:%=$(DIR)/$(OBJ)/%.o) \
		-CFLAGS "-I$(SRC_DIR) -I$(DIR) -I$(HERE)" -LDFLAGS "-Wl,--no-as-needed $(LIBS)"

.PHONY: all vsim
vsim: $(OBJ)/Vsim.mk
	$(MAKE) -j2 -C $(OBJ) -f Vsim.mk CURDIR=$(DIR)/$(OBJ) $(VARIABLES) \
		OPT_FAST="$(strip $(MODEL) $(COUNTS))" OPT_SLOW=-O1 OPT_GLOBAL=-O3 USER_LDFLAGS="$(LINK_COUNTS)" Vsim
