// What CUDA C++ means on a processor, for kernels that CubeCL writes: compiler.c puts this before them. A thread of a
// block is a `unit` of the driver's; where it has to wait for others, the driver goes on with those.
#pragma once
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <math.h>
#include <type_traits>
#include <utility>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include "unit.h"

// The kernels define these themselves, as other types of the same size.
#define uint64_t kernel_uint64_t
#define int64_t kernel_int64_t

#undef __global__
#undef __device__
#undef __host__
#undef __align__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __grid_constant__

static thread_local unit *self;
#define threadIdx (self->thread)
#define blockIdx (self->block)
#define blockDim (self->block_size)
#define gridDim (self->grid_size)
#define warpSize WARP

// Waiting.

static inline void wait_for(int whom, int place) {
    unit *me = self;
    me->wait(me, whom, place);
    self = me; // others ran on this thread of the host's
}
#define __syncthreads() wait_for(BLOCK, __COUNTER__)
#define __syncwarp(...) wait_for(WARP_MATES, __COUNTER__)
#define __threadfence() __atomic_thread_fence(__ATOMIC_SEQ_CST)

// Within a warp: each lane shows a value, and reads those of the lanes that came to the same place in the source. One that is
// not there shows no number; beyond the warp's ends a lane reads its own.

template <class T> static T read_lane(T value, int lane, int place) {
    static_assert(sizeof(T) <= sizeof self->shown, "wider than a lane shows");
    memcpy(self->shown, &value, sizeof value);
    wait_for(WARP_MATES, place);
    if (lane < 0 || lane >= WARP) return value;
    if (self->seen->here >> lane & 1)
        memcpy(&value, self->seen->values[lane], sizeof value);
    else
        memset((void *)&value, NOT_A_NUMBER, sizeof value);
    return value;
}
static inline unsigned lanes_where(bool value, int place) {
    *(unsigned long long *)self->shown = value;
    wait_for(WARP_MATES, place);
    unsigned lanes = 0;
    for (int lane = 0; lane < WARP; lane++)
        if (self->seen->here >> lane & 1 && self->seen->values[lane][0]) lanes |= 1u << lane;
    return lanes;
}
#define __activemask() lanes_where(true, __COUNTER__)
#define __shfl_sync(mask, value, lane) read_lane(value, (int)((lane) & (WARP - 1)), __COUNTER__)
#define __shfl_xor_sync(mask, value, bits) read_lane(value, self->lane ^ (int)(bits), __COUNTER__)
#define __shfl_up_sync(mask, value, by) read_lane(value, self->lane - (int)(by), __COUNTER__)
#define __shfl_down_sync(mask, value, by) read_lane(value, self->lane + (int)(by), __COUNTER__)
#define __ballot_sync(mask, value) lanes_where(value, __COUNTER__)
#define __any_sync(mask, value) (lanes_where(value, __COUNTER__) != 0)
#define __all_sync(mask, value) (lanes_where(!(value), __COUNTER__) == 0)

// Arithmetic.

using std::isinf;
using std::isnan;
template <class T, class U> static auto min(T a, U b) { return b < a ? b : a; }
template <class T, class U> static auto max(T a, U b) { return a < b ? b : a; }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline float rsqrt(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(unsigned long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(unsigned x) { return __builtin_ffs(x); }
static inline int __ffsll(unsigned long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned out = 0;
    for (int bit = 0; bit < 32; bit++) out |= (x >> bit & 1) << (31 - bit);
    return out;
}
static inline int __mulhi(int a, int b) { return (long long)a * b >> 32; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
static inline long long __mul64hi(long long a, long long b) { return (__int128)a * b >> 64; }

static inline float add_atomically(const float *at, float value) {
    float *to = const_cast<float *>(at), old, sum;
    __atomic_load(to, &old, __ATOMIC_RELAXED);
    do sum = old + value;
    while (!__atomic_compare_exchange(to, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

// The driver calls a kernel so: an argument is copied from where the driver was told that it lies.

template <class... Arguments, size_t... I>
static void call(void (*kernel)(Arguments...), void **arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<Arguments> *)arguments[I]...);
}
template <class... Arguments> static void call_kernel(void (*kernel)(Arguments...), unit *me, void **arguments) {
    self = me;
    call(kernel, arguments, std::index_sequence_for<Arguments...>());
}
