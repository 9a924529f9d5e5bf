//! A device that refuses memory: its panics are heard of in the whole process, so this has one to itself.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use togi_train::memory::{refused, unless_refused};

#[test]
fn a_refusal_becomes_an_error_and_nothing_else_does() {
    assert_eq!(unless_refused(|| 3), Ok(3));
    let other = catch_unwind(|| unless_refused(|| panic!("index out of bounds")));
    assert!(other.is_err(), "{other:?}");
    // Whichever thread it is that hears of it.
    let driver = |text: &'static str| thread::spawn(move || panic!("{text}")).join();
    let said = unless_refused(|| {
        driver("wgpu error: Out of Memory\n").expect("what was to be made");
    });
    assert_eq!(said, Err("wgpu error: Out of Memory".to_owned()));
    // Nor does it matter whether anybody asked for what that thread was to make.
    let unnoticed = unless_refused(|| {
        assert!(driver("CUDA_ERROR_OUT_OF_MEMORY").is_err());
        refused()
    });
    assert_eq!(unnoticed, Ok(Some("CUDA_ERROR_OUT_OF_MEMORY".to_owned())));
    let said: Result<(), String> = unless_refused(|| {
        let text = "Error while reading data\nout of device memory allocating 64 bytes\n at f";
        panic!("{text}");
    });
    let reason = "out of device memory allocating 64 bytes".to_owned();
    assert_eq!(said, Err(reason.clone()));
    assert_eq!(refused(), Some(reason));
    // What was refused before is forgotten: another panic is what it is.
    let other = catch_unwind(AssertUnwindSafe(|| unless_refused(|| panic!("overflow"))));
    assert!(other.is_err());
    assert_eq!(refused(), None);
}
