// Kernels on the processor: blocks on its cores, the threads of a block one after another. A kernel whose threads wait
// for each other gets a stack for each; it goes on with the next thread where one waits. (x86-64.)
//
// $STAND_IN_BACKWARDS lets the last block and the last thread go first: where threads have to wait for each other and do not,
// one of the two orders gives another result.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "run.h"

enum { STACK = 256 << 10 };

// What one core of the host needs to run blocks.
struct core {
    unit units[MOST_UNITS];
    struct shown seen[MOST_UNITS / WARP];
    char *stacks, *shared;
    void *stack;   // of the loop that chooses who goes on
    unit *running; // whom it chose
    const struct code *code;
    void **arguments;
    int backwards;
};
static _Thread_local struct core *core;

// Puts what a function must keep on this stack, whose top is then at *from, and goes on at the top `to` of another.
void change_stack(void **from, void *to);
__asm__("change_stack:\n"
        "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n");

static void *memory(size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) abort();
    return at;
}

// The `n`th of `count` to go on.
static long turn(long n, long count) { return core->backwards ? count - 1 - n : n; }

static void wait_for(unit *me, int whom, int place) {
    me->waits_for = whom;
    me->at = place;
    change_stack(&me->stack, core->stack);
}

static void first_run(void) {
    unit *me = core->running;
    core->code->run_unit(me, core->arguments);
    wait_for(me, OVER, 0);
}

static void give_stack(unit *me, char *stack) {
    void **top = (void **)(stack + STACK) - 1; // where a call would find its return address
    *--top = (void *)first_run;
    me->stack = top - 6; // what `change_stack` takes off
    me->waits_for = NOBODY;
}

// The lanes of a warp that wait at one place go on together once no lane of it can go on alone.
static int meet(unit *lanes, int count, struct shown *seen) {
    int place = 0, found = 0;
    for (int i = 0; i < count; i++) {
        if (lanes[i].waits_for == NOBODY) return 0;
        if (lanes[i].waits_for == WARP_MATES && (!found || lanes[i].at < place)) place = lanes[i].at, found = 1;
    }
    if (!found) return 0;
    seen->here = 0;
    for (int i = 0; i < count; i++)
        if (lanes[i].waits_for == WARP_MATES && lanes[i].at == place) {
            seen->here |= 1u << i;
            memcpy(seen->values[i], lanes[i].shown, sizeof lanes[i].shown);
            lanes[i].waits_for = NOBODY;
        }
    return 1;
}

static void run_waiting(unit *units, int count) {
    for (int i = 0; i < count; i++) give_stack(&units[i], core->stacks + (size_t)i * STACK);
    int warps = (count + WARP - 1) / WARP;
    for (int over = 0; over < count;) {
        for (int w = 0; w < warps; w++) {
            int first = turn(w, warps) * WARP, lanes = count - first < WARP ? count - first : WARP;
            do {
                for (int n = 0; n < lanes; n++) {
                    unit *next = &units[first + turn(n, lanes)];
                    if (next->waits_for != NOBODY) continue;
                    core->running = next;
                    change_stack(&core->stack, next->stack);
                    over += next->waits_for == OVER;
                }
            } while (meet(units + first, lanes, &core->seen[first / WARP]));
        }
        // Whoever is not over waits for the block now.
        const unit *first = NULL;
        for (int i = 0; i < count; i++) {
            if (units[i].waits_for != BLOCK) continue;
            if (!first) first = &units[i];
            if (units[i].at != first->at) {
                fprintf(stderr, "threads of a block wait at different places\n");
                abort();
            }
            units[i].waits_for = NOBODY;
        }
    }
}

void run_kernel(const struct code *code, struct size grid, struct size block, unsigned shared, void **arguments) {
    int count = block.x * block.y * block.z;
    long blocks = (long)grid.x * grid.y * grid.z;
#pragma omp parallel for schedule(dynamic)
    for (long n = 0; n < blocks; n++) {
        if (!core) {
            core = memory(sizeof *core);
            core->stacks = memory((size_t)MOST_UNITS * STACK);
            core->shared = memory(MOST_SHARED);
            core->backwards = getenv("STAND_IN_BACKWARDS") != NULL;
        }
        long b = turn(n, blocks);
        core->code = code;
        core->arguments = arguments;
        memset(core->shared, NOT_A_NUMBER, shared); // another block's
        for (int i = 0; i < count; i++) {
            unit *u = &core->units[i];
            *u = (unit){.shared = core->shared, .lane = i % WARP, .seen = &core->seen[i / WARP], .wait = wait_for};
            u->thread.x = i % block.x, u->thread.y = i / block.x % block.y, u->thread.z = i / block.x / block.y;
            u->block.x = b % grid.x, u->block.y = b / grid.x % grid.y, u->block.z = b / grid.x / grid.y;
            u->block_size.x = block.x, u->block_size.y = block.y, u->block_size.z = block.z;
            u->grid_size.x = grid.x, u->grid_size.y = grid.y, u->grid_size.z = grid.z;
        }
        if (code->waits)
            run_waiting(core->units, count);
        else
            for (int i = 0; i < count; i++) code->run_unit(&core->units[turn(i, count)], arguments);
    }
}
