//! jemalloc's profile of the heap: turned on, and written into memory.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;

use rustix::fs::{MemfdFlags, memfd_create};
use tikv_jemalloc_ctl::{profiling, raw};

use super::error::ProfileError;

/// Longest profile that is read. A stack is some 400 bytes in it.
const HEAP_BYTES_MAX: u64 = 256 << 20;

fn refused(what: &'static str) -> impl FnOnce(tikv_jemalloc_ctl::Error) -> ProfileError {
    move |error| ProfileError::System { what, source: io::Error::other(error.to_string()) }
}

/// Begins to sample.
///
/// # Errors
/// [`ProfileError::NoHeap`] if jemalloc was not built for it, or was told not to be able to.
pub(super) fn activate() -> Result<(), ProfileError> {
    if !profiling::prof::read().unwrap_or(false) {
        return Err(ProfileError::NoHeap("start it with _RJEM_MALLOC_CONF=prof:true in the environment"));
    }
    // SAFETY: `prof.active` takes a bool (jemalloc(3)).
    unsafe { raw::write(b"prof.active\0", true) }.map_err(refused("prof.active"))
}

/// What was sampled so far and is in use, in jemalloc's own form. No disk is touched.
pub(super) fn dump() -> Result<String, ProfileError> {
    let mut file: File =
        memfd_create("heap", MemfdFlags::CLOEXEC).map_err(ProfileError::system("memory for a profile"))?.into();
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("no zero in a number");
    // SAFETY: `prof.dump` takes a pointer to a name that ends with a zero, and reads it during the call (jemalloc(3)).
    unsafe { raw::write(b"prof.dump\0", path.as_ptr()) }.map_err(refused("prof.dump"))?;
    let mut text = String::new();
    file.by_ref()
        .take(HEAP_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(ProfileError::system("profile of the heap"))?;
    Ok(text)
}
