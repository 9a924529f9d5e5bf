// Kernels on the processor (run.c), for driver.c.
#pragma once
#include <stddef.h>
#include "unit.h"

enum {
    MOST_UNITS = 1024,    // threads of a block
    MOST_SHARED = 232448, // bytes of shared memory of a block
};

struct size {
    unsigned x, y, z;
};

// What compiler.c made of a kernel.
struct code {
    void (*run_unit)(unit *me, void **arguments);
    int waits; // its threads wait for each other
};

void run_kernel(const struct code *code, struct size grid, struct size block, unsigned shared, void **arguments);
