// A CUDA driver for machines without a GPU: it says that an H200 is there, gives memory out of the host's and counts the
// kernels that are asked for. It shows, of a build with `cuda-nvrtc`,
//   - whether NVRTC compiles every kernel;
//   - what CubeCL's pools reserve, beside the estimate;
//   - how many kernels are asked for, and what asking costs the processor.
//
// It runs no kernel, and all that is read back is zero, unless $STAND_IN_KERNELS names a folder: with compiler.c in NVRTC's
// place the processor runs them (run.c), slowly. That shows
//   - whether they compute what they should, as CUDA C++, for CUDA's rows with gaps and its warps of 32;
// and nothing about speed, about what NVRTC and a GPU make of them, or about blocks that see each other.
//
// NVRTC and CUDA's headers are those of NVIDIA's packages for Python; their folder `nvidia/cu13` is called $CUDA here:
//
//   pip download --no-deps nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.88
//   pip download --no-deps nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.3.5.0.6      (unpack all into one folder)
//   cc -O2 -shared -fPIC -fopenmp -o libcuda.so.1 driver.c run.c
//   LD_LIBRARY_PATH=.:$CUDA/lib CUDA_PATH=$CUDA STAND_IN_COUNTS=counts.txt xtask bench sft --device cuda …
//
// With kernels on the processor, which needs the headers alone:
//
//   tools/cuda-stand-in/setup.sh FOLDER && . FOLDER/env && xtask train dpo --device cuda …
//
// counts.txt has the kernels, the most frequent last; with $STAND_IN_MEMORY the card has so many bytes. With no kernel run, losses, samples and the choice among kernels
// that are tried out mean nothing, and PPO and GRPO refuse to go on: what was drawn and what is trained do not agree.
// Nothing of what `persistence` keeps from such a run may reach a real one.

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "run.h"

typedef int Result;
typedef uint64_t Pointer;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_SUCH_DEVICE = 101, NOT_FOUND = 500 };

enum { MOST_KERNELS = 65536, MOST_BUFFERS = 1 << 20 };

struct kernel {
    char name[256];
    uint64_t asked_for;
    struct code code;
};
static struct kernel kernels[MOST_KERNELS];
static int kernel_count;
static struct {
    Pointer at;
    size_t size;
} buffers[MOST_BUFFERS];
static int buffer_count;
static uint64_t held, most_held, asked_for, copies;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int context;

static size_t total_memory(void) {
    const char *bytes = getenv("STAND_IN_MEMORY");
    return bytes ? strtoull(bytes, NULL, 10) : 150110011392u;
}
static int runs(void) { return getenv("STAND_IN_KERNELS") != NULL; }

static int by_count(const void *a, const void *b) {
    uint64_t x = ((const struct kernel *)a)->asked_for, y = ((const struct kernel *)b)->asked_for;
    return (x > y) - (x < y);
}

static void report(void) {
    const char *path = getenv("STAND_IN_COUNTS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    qsort(kernels, kernel_count, sizeof kernels[0], by_count);
    for (int i = 0; i < kernel_count; i++)
        fprintf(file, "%lu %s\n", kernels[i].asked_for, kernels[i].name);
    fprintf(file, "%lu kernels of %d kinds, %lu copies, at most %.3f GB\n", asked_for, kernel_count, copies, most_held / 1e9);
    fclose(file);
}

Result cuInit(unsigned flags) {
    static int before;
    if (!before) atexit(report);
    before = 1;
    return OK;
}

// The device.

Result cuDriverGetVersion(int *version) { *version = 13000; return OK; }
Result cuDeviceGetCount(int *count) { *count = 1; return OK; }
Result cuDeviceGet(int *device, int index) { *device = index; return index ? NO_SUCH_DEVICE : OK; }
Result cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "no GPU: stands in for an H200"); return OK; }
Result cuDeviceGetUuid_v2(char *id, int device) { memset(id, 7, 16); return OK; }
Result cuDeviceGetPCIBusId(char *id, int size, int device) { snprintf(id, size, "0000:01:00.0"); return OK; }
Result cuDeviceTotalMem_v2(size_t *size, int device) { *size = total_memory(); return OK; }
Result cuMemGetInfo_v2(size_t *free, size_t *total) { *total = total_memory(); *free = total_memory() - held; return OK; }

Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break; // threads of a block, along x, along y
    case 4: *value = 64; break;                   // along z
    case 5: *value = 2147483647; break;           // blocks of a grid along x
    case 6: case 7: *value = 65535; break;        // along y, along z
    case 8: *value = 49152; break;                // shared memory of a block
    case 10: *value = 32; break;                  // threads of a warp
    case 16: *value = 132; break;                 // multiprocessors
    case 75: *value = 9; break;                   // compute capability, major
    case 76: *value = 0; break;                   // minor
    case 97: *value = MOST_SHARED; break;             // shared memory of a block that asks for more
    default: *value = 1;
    }
    return OK;
}

Result cuDevicePrimaryCtxRetain(void **out, int device) { *out = &context; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
Result cuCtxSetCurrent(void *to) { return OK; }
Result cuCtxGetCurrent(void **out) { *out = &context; return OK; }
Result cuCtxSynchronize(void) { return OK; }
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return OK; }

// Memory. The host gives a page when it is first written, which is never if no kernel runs.

Result cuMemAlloc_v2(Pointer *out, size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    if (held + size > total_memory() || buffer_count == MOST_BUFFERS) {
        pthread_mutex_unlock(&lock);
        munmap(at, size);
        return OUT_OF_MEMORY;
    }
    *out = buffers[buffer_count].at = (Pointer)at;
    buffers[buffer_count++].size = size;
    held += size;
    if (held > most_held) most_held = held;
    pthread_mutex_unlock(&lock);
    if (runs()) memset(at, NOT_A_NUMBER, size);
    return OK;
}

Result cuMemFree_v2(Pointer at) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < buffer_count; i++)
        if (buffers[i].at == at) {
            munmap((void *)at, buffers[i].size);
            held -= buffers[i].size;
            buffers[i] = buffers[--buffer_count];
            break;
        }
    pthread_mutex_unlock(&lock);
    return OK;
}

Result cuMemAllocAsync(Pointer *out, size_t size, void *stream) { return cuMemAlloc_v2(out, size); }
Result cuMemFreeAsync(Pointer at, void *stream) { return cuMemFree_v2(at); }
Result cuMemAllocHost_v2(void **out, size_t size) { *out = malloc(size ? size : 1); return *out ? OK : OUT_OF_MEMORY; }
Result cuMemFreeHost(void *at) { free(at); return OK; }

// If no kernel runs, of what is copied to the device only the numbers arrive that it is asked to double before it is used.
static int in_use(void) { return asked_for > 16; }

Result cuMemcpyHtoDAsync_v2(Pointer to, void *from, size_t size, void *stream) {
    copies++;
    if (runs() || !in_use()) memcpy((void *)to, from, size);
    return OK;
}
Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *stream) { copies++; memcpy(to, (void *)from, size); return OK; }
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, void *stream) {
    copies++;
    if (runs()) memmove((void *)to, (void *)from, size);
    return OK;
}

enum { HOST = 1 };
struct place {
    size_t x, y; int kind; char *host; Pointer device; void *array; size_t pitch;
};
struct rows { // CUDA_MEMCPY2D
    struct place from, to;
    size_t width, height;
};
static char *row(struct place place, size_t y) {
    return (place.kind == HOST ? place.host : (char *)place.device) + (place.y + y) * place.pitch + place.x;
}
Result cuMemcpy2DAsync_v2(struct rows *rows, void *stream) {
    copies++;
    for (size_t y = 0; y < rows->height; y++)
        if (runs())
            memmove(row(rows->to, y), row(rows->from, y), rows->width);
        else if (rows->to.kind == HOST)
            memset(row(rows->to, y), 0, rows->width);
    return OK;
}

// Streams and events: all is done at once.

Result cuStreamCreate(void **out, unsigned flags) { *out = malloc(1); return OK; }
Result cuStreamCreateWithPriority(void **out, unsigned flags, int priority) { return cuStreamCreate(out, flags); }
Result cuStreamDestroy_v2(void *stream) { free(stream); return OK; }
Result cuStreamSynchronize(void *stream) { return OK; }
Result cuStreamQuery(void *stream) { return OK; }
Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return OK; }
Result cuEventCreate(void **out, unsigned flags) { *out = calloc(1, sizeof(struct timespec)); return OK; }
Result cuEventRecord(void *event, void *stream) { clock_gettime(CLOCK_MONOTONIC, event); return OK; }
Result cuEventSynchronize(void *event) { return OK; }
Result cuEventQuery(void *event) { return OK; }
Result cuEventDestroy_v2(void *event) { free(event); return OK; }
Result cuEventElapsedTime_v2(float *out, struct timespec *start, struct timespec *end) {
    float ms = (end->tv_sec - start->tv_sec) * 1e3f + (end->tv_nsec - start->tv_nsec) / 1e6f;
    *out = ms > 0 ? ms : 1e-3f;
    return OK;
}

// Kernels.

Result cuModuleLoadData(void **out, const void *image) {
    if (!runs()) {
        *out = malloc(1);
        return OK;
    }
    *out = dlopen(image, RTLD_NOW | RTLD_LOCAL); // a path of compiler.c's
    if (!*out) fprintf(stderr, "%s\n", dlerror());
    return *out ? OK : NOT_FOUND;
}
Result cuModuleUnload(void *module) {
    if (!runs()) free(module);
    return OK;
}
Result cuModuleGetFunction(void **out, void *module, const char *name) {
    if (kernel_count == MOST_KERNELS) return OUT_OF_MEMORY;
    struct kernel *kernel = &kernels[kernel_count++];
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    if (runs()) {
        kernel->code.run_unit = (void (*)(unit *, void **))dlsym(module, "run_unit");
        kernel->code.waits = *(const int *)dlsym(module, "waits");
    }
    *out = kernel;
    return OK;
}
Result cuFuncSetAttribute(void *kernel, int attribute, int value) { return OK; }
Result cuFuncGetAttribute(int *value, int attribute, void *kernel) { *value = 64; return OK; }
Result cuTensorMapEncodeTiled(void) { return OK; }

Result cuLaunchKernel(struct kernel *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra) {
    asked_for++;
    kernel->asked_for++;
    if (runs()) {
        if ((size_t)block_x * block_y * block_z > MOST_UNITS || shared > MOST_SHARED) return INVALID_VALUE;
        struct size grid = {grid_x, grid_y, grid_z}, block = {block_x, block_y, block_z};
        run_kernel(&kernel->code, grid, block, shared, arguments);
    } else if (!in_use()) { // twice 1, 2, 3: of float32, float16 or bfloat16
        float *x = (float *)*(Pointer *)arguments[0];
        uint16_t *low = (uint16_t *)x;
        if (x[0] == 1 && x[1] == 2 && x[2] == 3)
            for (int i = 0; i < 3; i++) x[i] *= 2;
        else if (low[0] == 0x3c00 && low[1] == 0x4000 && low[2] == 0x4200)
            for (int i = 0; i < 3; i++) low[i] += 0x400;
        else if (low[0] == 0x3f80 && low[1] == 0x4000 && low[2] == 0x4040)
            for (int i = 0; i < 3; i++) low[i] += 0x80;
    }
    return OK;
}

Result cuGetErrorName(Result result, const char **out) { *out = result == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "an error"; return OK; }
Result cuGetErrorString(Result result, const char **out) { *out = result == OUT_OF_MEMORY ? "out of memory" : "an error"; return OK; }
Result cuGetExportTable(const void **out, const void *id) { *out = NULL; return NOT_FOUND; } // NVRTC asks
