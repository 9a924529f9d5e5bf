// NVRTC for machines without a GPU: a kernel in CUDA C++ becomes a library for this processor, by the system's C++
// compiler and kernels.h. What is handed back as PTX is the path of that library; driver.c runs it.
//
//   cc -O2 -shared -fPIC -DHERE="\"$PWD\"" -o libnvrtc.so compiler.c
//
// Headers of CUDA's half types are read from $CUDA_PATH/include. Libraries are kept in $STAND_IN_KERNELS (a folder), by
// a hash of the kernel's source and of the headers here; what did not compile is left there with what the compiler said.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, COMPILATION = 6 };
struct program {
    char *source;
    char library[1200], log[65536];
};

// What a kernel's library depends on beside its source.
static const char flags[] = "-std=c++17 -O1 -march=native -fno-strict-aliasing -w -fPIC -shared";
static const char *const headers[] = {HERE "/kernels.h", HERE "/mma.h", HERE "/unit.h"};

static uint64_t hash(uint64_t so_far, const char *text, size_t size) { // FNV-1a
    for (size_t i = 0; i < size; i++) so_far = (so_far ^ (unsigned char)text[i]) * 1099511628211u;
    return so_far;
}

static uint64_t key(const char *source) {
    uint64_t out = hash(14695981039346656037u, source, strlen(source));
    out = hash(out, flags, sizeof flags);
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        char text[65536];
        FILE *file = fopen(headers[i], "r");
        if (!file) continue; // the compiler will say so
        out = hash(out, text, fread(text, 1, sizeof text, file));
        fclose(file);
    }
    return out;
}

// The next name in parentheses behind `at`, which is moved behind it.
static int operand(const char **at, const char **name) {
    *name = strchr(*at, '(') + 1;
    *at = strchr(*name, ')');
    return *at - *name;
}

// What a processor's compiler does not take is written otherwise: `extern __shared__ … char NAME[];`, which is the block's
// own memory here, and `asm volatile("atom.relaxed.add.f32 …" : "=f"(OLD) : "l"(AT), "f"(VALUE) );`.
static void write_source(FILE *out, const char *source) {
    static const char shared[] = "extern __shared__ ", atomic[] = "asm volatile(\"atom.relaxed.add.f32 ";
    for (;;) {
        const char *memory = strstr(source, shared), *add = strstr(source, atomic);
        const char *at = memory && (!add || memory < add) ? memory : add;
        if (!at) break;
        fwrite(source, 1, at - source, out);
        if (at == memory) {
            const char *name = strchr(at, '[');
            while (name[-1] != ' ') name--;
            fprintf(out, "char *%.*s = self->shared", (int)(strchr(name, '[') - name), name);
            source = strchr(at, ';');
        } else {
            const char *old, *to, *value, *end = strchr(at + sizeof atomic, '"');
            int old_size = operand(&end, &old), to_size = operand(&end, &to), value_size = operand(&end, &value);
            fprintf(out, "%.*s = add_atomically(%.*s, %.*s)", old_size, old, to_size, to, value_size, value);
            source = strchr(end, ';');
        }
    }
    fputs(source, out);
}

int nvrtcVersion(int *major, int *minor) { *major = 13, *minor = 0; return OK; }
const char *nvrtcGetErrorString(int result) { return result == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "an error"; }

int nvrtcCreateProgram(struct program **out, const char *source, const char *name, int n, const char **headers, const char **names) {
    *out = calloc(1, sizeof **out);
    (*out)->source = strdup(source);
    return OK;
}

int nvrtcCompileProgram(struct program *program, int count, const char **options) {
    const char *source = program->source, *cuda = getenv("CUDA_PATH"), *folder = getenv("STAND_IN_KERNELS");
    if (!cuda || !folder || strlen(cuda) > 512 || strlen(folder) > 512) {
        snprintf(program->log, sizeof program->log, "CUDA_PATH and STAND_IN_KERNELS are to be folders");
        return COMPILATION;
    }
    char path[1100];
    snprintf(path, sizeof path, "%s/%016lx", folder, key(source));
    snprintf(program->library, sizeof program->library, "%s.so", path);
    if (access(program->library, R_OK) == 0) return OK;

    // The entry point: `extern "C" __global__ void __launch_bounds__(256) NAME(`.
    const char *entry = strstr(source, "__global__"), *bounds = entry ? strstr(entry, "__launch_bounds__(") : NULL;
    if (!bounds) {
        snprintf(program->log, sizeof program->log, "no entry point with __launch_bounds__");
        return COMPILATION;
    }
    const char *open = strchr(strchr(bounds, ')'), '('), *name = open;
    while (name[-1] != ' ') name--;

    // Another process may compile the same.
    char part[1200], file[1300], command[8192];
    snprintf(part, sizeof part, "%s.%d", path, getpid());
    snprintf(file, sizeof file, "%s.cpp", part);
    FILE *out = fopen(file, "w");
    if (!out) {
        snprintf(program->log, sizeof program->log, "%s cannot be written", file);
        return COMPILATION;
    }
    write_source(out, source);
    fprintf(out, "\nextern \"C\" void run_unit(unit *me, void **arguments) { call_kernel(%.*s, me, arguments); }\n", (int)(open - name), name);
    fprintf(out, "extern \"C\" const int waits = %d;\n", strstr(source, "sync") || strstr(source, "__activemask"));
    fclose(out);

    snprintf(command, sizeof command,
             "g++ %s -I%s -I%s/include -include kernels.h -o %s.so %s > %s.log 2>&1 && mv %s.so %s && rm %s.*", flags, HERE, cuda,
             part, file, part, part, program->library, part);
    if (system(command) == 0) return OK;
    snprintf(file, sizeof file, "%s.log", part);
    FILE *log = fopen(file, "r");
    if (log) {
        program->log[fread(program->log, 1, sizeof program->log - 1, log)] = 0;
        fclose(log);
    }
    return COMPILATION;
}

int nvrtcGetPTXSize(struct program *program, size_t *size) { *size = strlen(program->library) + 1; return OK; }
int nvrtcGetPTX(struct program *program, char *out) { strcpy(out, program->library); return OK; }
int nvrtcGetProgramLogSize(struct program *program, size_t *size) { *size = strlen(program->log) + 1; return OK; }
int nvrtcGetProgramLog(struct program *program, char *out) { strcpy(out, program->log); return OK; }
int nvrtcDestroyProgram(struct program **program) {
    free((*program)->source);
    free(*program);
    return OK;
}
