//! How the C library's allocator keeps memory.

/// Asks the allocator to keep what is freed, up to 1 GiB, and to take blocks of up to 32 MiB from
/// it: a step frees and takes the same large buffers again and again, and giving them back to the
/// system costs a page fault for every 4 KiB. Does nothing where the C library is not glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        const TRIM_THRESHOLD: c_int = -1;
        const MMAP_THRESHOLD: c_int = -3;
        // SAFETY: `mallopt` is thread-safe and takes any value; it refuses what it cannot use.
        unsafe {
            mallopt(MMAP_THRESHOLD, 32 << 20);
            mallopt(TRIM_THRESHOLD, 1 << 30);
        }
    }
}

/// Gives the system what is freed and was kept. Between stages of a run: the next one takes other buffers, and
/// what the process holds is then its own. Does nothing where the C library is not glibc.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> c_int;
        }
        // SAFETY: `malloc_trim` is thread-safe and touches free memory alone.
        unsafe {
            malloc_trim(0);
        }
    }
}
