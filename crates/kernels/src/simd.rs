//! One body, compiled for AVX-512, AVX2 and the baseline, chosen at run time.

/// Declares a function whose body is compiled for several instruction sets.
///
/// The name in angle brackets is a `const bool` for the body: whether fused multiply-add is one
/// instruction there.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$fma:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn v4($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn v3($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                match crate::simd::level() {
                    // SAFETY: `level` detected the instruction set on this machine.
                    crate::simd::Level::V4 => return unsafe { v4($($arg),*) },
                    // SAFETY: as above.
                    crate::simd::Level::V3 => return unsafe { v3($($arg),*) },
                    crate::simd::Level::Base => {}
                }
            }
            body::<false>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Parts of a panel that are asked for side by side: a processor foresees each of them apart, and reads several
/// faster than one.
#[cfg(target_arch = "x86_64")]
pub(crate) const STREAMS: usize = 8;

/// The instruction sets that functions are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// What every processor of the target has.
    Base,
    /// AVX2 and FMA.
    V3,
    /// AVX-512 F, VL, BW and DQ.
    V4,
}

/// What this machine has.
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("fma")
        {
            return Level::V4;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::V3;
        }
    }
    Level::Base
}

/// `a * b + c`, fused where that is one instruction.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(x)` to about 1e-7 relative error, in a form that vectorises; 0 below -87.3.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // x = n ln 2 + r, |r| <= ln 2 / 2; the rounding to n uses the bits of 1.5 * 2^23 + n.
    const MAGIC: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.3);
    let t = fma::<FMA>(clamped, std::f32::consts::LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = fma::<FMA>(n, -0.693_359_4, clamped);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.388_888_9e-3;
    p = fma::<FMA>(p, r, 8.333_333e-3);
    p = fma::<FMA>(p, r, 4.166_666_8e-2);
    p = fma::<FMA>(p, r, 1.666_666_7e-1);
    p = fma::<FMA>(p, r, 0.5);
    p = fma::<FMA>(p, r, 1.0);
    p = fma::<FMA>(p, r, 1.0);
    let scale = f32::from_bits((t.to_bits() << 23).wrapping_add(127 << 23));
    let y = p * scale;
    if x < -87.3 { 0.0 } else { y }
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// Lanes of the partial sums that reductions keep: the order of addition is part of the result,
/// so it is the same on every instruction set.
pub(crate) const LANES: usize = 16;

/// Adds the lanes in a fixed order.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut half = [0.0; 8];
    for i in 0..8 {
        half[i] = lanes[i] + lanes[i + 8];
    }
    let mut quarter = [0.0; 4];
    for i in 0..4 {
        quarter[i] = half[i] + half[i + 4];
    }
    (quarter[0] + quarter[2]) + (quarter[1] + quarter[3])
}

/// Dot product with a fixed order of addition.
#[inline(always)]
pub(crate) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] = fma::<FMA>(x[i], y[i], lanes[i]);
        }
    }
    let mut sum = sum_lanes(lanes);
    for (x, y) in a_tail.iter().zip(b_tail) {
        sum = fma::<FMA>(*x, *y, sum);
    }
    sum
}

#[cfg(test)]
mod tests {
    multiversion! {
        fn exp_all<F>(x: &[f32], y: &mut [f32]) {
            for (x, y) in x.iter().zip(y) { *y = super::exp::<F>(*x); }
        }
    }

    #[test]
    fn exp_is_within_two_ulps_of_the_exact_value() {
        let x: Vec<f32> = (-8700..8800).map(|i| i as f32 * 0.01).collect();
        let mut y = vec![0.0; x.len()];
        exp_all(&x, &mut y);
        for (x, y) in x.iter().zip(y) {
            let exact = f64::from(*x).exp();
            let error = (f64::from(y) - exact).abs() / exact;
            assert!(
                error < 2.5e-7,
                "exp({x}) = {y}, exact {exact}, error {error}"
            );
        }
        let mut y = [1.0; 3];
        exp_all(&[f32::NEG_INFINITY, -100.0, f32::NAN], &mut y);
        assert_eq!(y[0], 0.0);
        assert_eq!(y[1], 0.0);
        assert!(y[2].is_nan());
    }
}
