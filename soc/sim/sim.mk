# Compiles a generated SoC into Vsim, instead of LiteX's simulation Makefile: no tracing, the model itself at -O3,
# two jobs. Run in the gateware directory with VERILOG (all sources, relative), MODULES (LiteX simulation modules), and three paths
# without spaces: DIR, to this directory, SRC_DIR, to LiteX's simulator, and HERE, to ours.

OBJ    := obj_sim
CORE   := sim pads parse modules libdylib
LIBS   := -levent -ljson-c -ldl -lz -lm -lpthread
MODEL  ?= -O3
VFLAGS ?= -O3 --x-assign fast --x-initial fast --noassert --output-split 20000 --unroll-count 256

all: $(MODULES:%=modules/%.so) $(OBJ)/Vsim

modules/%.so: $(HERE)/*.c $(HERE)/*.h
	mkdir -p modules
	$(CC) -O3 -Wall -fPIC -shared -I$(SRC_DIR) -o $@ \
		$(firstword $(wildcard $(HERE)/$*.c $(SRC_DIR)/modules/$*/$*.c)) -ljson-c

$(OBJ)/%.o: $(SRC_DIR)/%.c
	mkdir -p $(OBJ)
	$(CC) -c -O3 -w -I$(SRC_DIR) -o $@ $<

$(OBJ)/Vsim: $(VERILOG) sim_init.cpp $(HERE)/harness.cpp $(CORE:%=$(OBJ)/%.o)
	verilator --cc --exe --top-module sim --Mdir $(OBJ) -Wno-fatal -Wno-lint -Wno-style $(VFLAGS) -DPRINTF_COND=0 \
		$(VERILOG) $(DIR)/sim_init.cpp $(HERE)/harness.cpp $(CORE:%=$(DIR)/$(OBJ)/%.o) \
		-CFLAGS "-I$(SRC_DIR) -I$(DIR)" -LDFLAGS "-Wl,--no-as-needed $(LIBS)"
	$(MAKE) -j2 -C $(OBJ) -f Vsim.mk CURDIR=$(DIR)/$(OBJ) OPT_FAST="$(MODEL)" OPT_SLOW=-O1 OPT_GLOBAL=-O3 Vsim
