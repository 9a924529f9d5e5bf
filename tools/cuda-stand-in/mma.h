// Matrices of tensor cores on a processor: a warp's first lane holds them whole and multiplies.
#pragma once

namespace nvcuda::wmma {
struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}

template <class E> struct stored { using type = E; };
template <> struct stored<precision::tf32> { using type = float; };

template <class Kind, int M, int N, int K> struct lines; // rows and columns
template <int M, int N, int K> struct lines<matrix_a, M, N, K> { enum { rows = M, columns = K }; };
template <int M, int N, int K> struct lines<matrix_b, M, N, K> { enum { rows = K, columns = N }; };
template <int M, int N, int K> struct lines<accumulator, M, N, K> { enum { rows = M, columns = N }; };

template <class Kind, int M, int N, int K, class E, class Layout = void> struct fragment {
    enum { rows = lines<Kind, M, N, K>::rows, columns = lines<Kind, M, N, K>::columns, num_elements = rows * columns };
    typename stored<E>::type x[num_elements]; // row by row
};

// TF32's 11 bits of a float32, the nearest or what is left when the others are cut off.
static inline float to_tf32(float x, bool nearest) {
    unsigned bits;
    memcpy(&bits, &x, sizeof x);
    if (nearest && isfinite(x)) bits += 0x1000;
    bits &= ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline float __float_to_tf32(float x) { return to_tf32(x, true); }

// What a tensor core reads.
template <class E> static E factor(E x) { return x; }
static inline float factor(float x) { return to_tf32(x, false); }

template <class F> static void by_first_lane(F work) {
    wait_for(WARP_MATES, -1); // for what the others have written
    if (self->lane == 0) work();
    wait_for(WARP_MATES, -2);
}

template <class F, class T> static void fill_fragment(F &to, T value) {
    for (auto &x : to.x) x = value;
}
template <class F, class T> static void load(F &to, const T *from, unsigned stride, bool by_row) {
    by_first_lane([&] {
        for (int r = 0; r < F::rows; r++)
            for (int c = 0; c < F::columns; c++) to.x[r * F::columns + c] = by_row ? from[r * stride + c] : from[c * stride + r];
    });
}
template <class Kind, int M, int N, int K, class E, class Layout, class T>
static void load_matrix_sync(fragment<Kind, M, N, K, E, Layout> &to, const T *from, unsigned stride) {
    load(to, from, stride, std::is_same_v<Layout, row_major>);
}
template <int M, int N, int K, class E, class T>
static void load_matrix_sync(fragment<accumulator, M, N, K, E> &to, const T *from, unsigned stride, layout_t layout) {
    load(to, from, stride, layout == mem_row_major);
}
template <int M, int N, int K, class E, class T>
static void store_matrix_sync(T *to, const fragment<accumulator, M, N, K, E> &from, unsigned stride, layout_t layout) {
    by_first_lane([&] {
        for (int r = 0; r < M; r++)
            for (int c = 0; c < N; c++) to[layout == mem_row_major ? r * stride + c : c * stride + r] = from.x[r * N + c];
    });
}
template <int M, int N, int K, class A, class LayoutA, class B, class LayoutB, class C>
static void mma_sync(fragment<accumulator, M, N, K, C> &to, const fragment<matrix_a, M, N, K, A, LayoutA> &a,
                     const fragment<matrix_b, M, N, K, B, LayoutB> &b, const fragment<accumulator, M, N, K, C> &c) {
    using Sum = std::conditional_t<std::is_integral_v<C>, int, float>;
    if (self->lane != 0) return;
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            Sum sum = Sum(c.x[m * N + n]);
            for (int k = 0; k < K; k++) sum += Sum(factor(a.x[m * K + k])) * Sum(factor(b.x[k * N + n]));
            to.x[m * N + n] = C(sum);
        }
}
} // namespace nvcuda::wmma
