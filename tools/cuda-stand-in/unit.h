// What the driver and a kernel that a processor runs know of each other.
#pragma once
#include <stdint.h>

enum {
    WARP = 32,
    NOT_A_NUMBER = 0xff, // each byte of what nobody has written or shown
};

// Whom a thread waits for.
enum { NOBODY, BLOCK, WARP_MATES, OVER };

// What the lanes of a warp that waited at one place showed each other.
struct shown {
    uint32_t here; // a bit for each of them
    uint64_t values[WARP][2];
};

// A thread of a block.
typedef struct unit {
    struct { unsigned x, y, z; } thread, block, block_size, grid_size;
    char *shared; // the block's shared memory
    int lane;     // its number in its warp
    uint64_t shown[2];
    const struct shown *seen;
    void (*wait)(struct unit *, int whom, int place);
    // the driver's
    int waits_for, at;
    void *stack;
} unit;
