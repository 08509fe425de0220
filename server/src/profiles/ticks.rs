//! The timer of the CPU's time and its signal: whoever runs when it ticks sends a copy of its stack.
//!
//! A signal comes amid anything: amid the allocator, amid a lock. Its handler therefore only copies, and the system does that:
//! registers and the upper end of the stack go as one message into a pair of sockets. Memory that is not there fails that call
//! and nothing else. Unwinding and naming are another thread's work, where allocating is allowed.
//!
//! Once there is a handler it stays, and so do the sockets: a signal that is still on its way when a profile ends would
//! otherwise end the process, or find its descriptor to be another's.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use super::error::ProfileError;

/// Time of the CPU between two ticks: Go's, too.
pub(super) const PERIOD: Duration = Duration::from_millis(10);

/// What is copied of a stack at most. Frames beyond are not seen.
const STACK_BYTES_MAX: usize = 32 << 10;
/// Where a stack ends, so does a page of this size, or a larger one.
const PAGE_BYTES: u64 = 4096;

/// In front of the bytes of a stack.
#[repr(C)]
struct Head {
    round: u64,
    thread: u64,
    instruction: u64,
    stack: u64,
    frame: u64,
    link: u64,
}

const HEAD_BYTES: usize = size_of::<Head>();

/// What a tick brings at most.
pub(super) const TICK_BYTES_MAX: usize = HEAD_BYTES + STACK_BYTES_MAX;

/// The sending end, once there is one.
static SENDER: AtomicI32 = AtomicI32::new(-1);
/// Which profile is being taken; 0 while none is.
static ROUND: AtomicU64 = AtomicU64::new(0);
/// Ticks whose copy could not be sent.
static LOST: AtomicU64 = AtomicU64::new(0);
/// Whether somebody has the timer.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// Where a thread was, and the upper end of its stack.
pub(super) struct Tick<'a> {
    /// The system's number of the thread.
    pub(super) thread: u64,
    /// Where it was.
    pub(super) instruction: u64,
    /// Where its stack began.
    pub(super) stack: u64,
    /// The register that may point to its frame.
    pub(super) frame: u64,
    /// Where it returns to, on machines with a register for that.
    #[cfg(target_arch = "aarch64")]
    pub(super) link: u64,
    /// The stack's bytes from `stack` on.
    pub(super) bytes: &'a [u8],
}

/// The timer. Runs from `begin` to `end`, and is somebody's until it is dropped; there is one at a time.
pub(super) struct Ticks {
    receiver: &'static UnixDatagram,
    round: u64,
}

impl Ticks {
    /// Takes the timer, which does not run yet.
    ///
    /// # Errors
    /// [`ProfileError::InUse`] if somebody has it; or the system's.
    pub(super) fn claim() -> Result<Self, ProfileError> {
        static ROUNDS: AtomicU64 = AtomicU64::new(0);
        if IN_USE.swap(true, Ordering::AcqRel) {
            return Err(ProfileError::InUse);
        }
        let ready = receiver().and_then(|receiver| handle().map(|()| receiver));
        let receiver = ready.map_err(ProfileError::system("a handler of SIGPROF and its sockets"));
        let round = ROUNDS.fetch_add(1, Ordering::Relaxed) + 1;
        receiver.map(|receiver| Self { receiver, round }).inspect_err(|_| IN_USE.store(false, Ordering::Release))
    }

    /// Starts the timer.
    pub(super) fn begin(&self) -> Result<(), ProfileError> {
        LOST.store(0, Ordering::Relaxed);
        ROUND.store(self.round, Ordering::Release);
        set_timer(PERIOD).map_err(ProfileError::system("timer of the CPU's time"))
    }

    /// Stops the timer, which stays whose it is.
    pub(super) fn end(&self) {
        ROUND.store(0, Ordering::Release);
        // Fails for arguments alone, and these are constants.
        _ = set_timer(Duration::ZERO);
    }

    /// The next tick; `None` if none comes within `wait`.
    pub(super) fn next<'a>(
        &self,
        bytes: &'a mut [u8; TICK_BYTES_MAX],
        wait: Duration,
    ) -> Result<Option<Tick<'a>>, ProfileError> {
        let received = self.receiver.set_read_timeout(Some(wait)).and_then(|()| self.receiver.recv(bytes));
        let length = match received {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(ProfileError::system("samples")(error)),
        };
        let (head, stack_bytes) = bytes[..length].split_at(HEAD_BYTES.min(length));
        let mut words = head.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
        let mut word = || words.next().unwrap_or_default();
        let round = word();
        let mut tick = |round| {
            let (thread, instruction, stack, frame) = (word(), word(), word(), word());
            #[cfg(target_arch = "aarch64")]
            let link = word();
            let tick = Tick {
                thread,
                instruction,
                stack,
                frame,
                #[cfg(target_arch = "aarch64")]
                link,
                bytes: stack_bytes,
            };
            // What is left of an earlier profile belongs to nobody.
            (round == self.round).then_some(tick)
        };
        Ok(tick(round))
    }

    /// Ticks so far that brought nothing, for want of room.
    pub(super) fn lost(&self) -> u64 {
        LOST.load(Ordering::Relaxed)
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.end();
        IN_USE.store(false, Ordering::Release);
    }
}

/// The receiving end; makes both on first use, for the life of the process.
fn receiver() -> io::Result<&'static UnixDatagram> {
    static ENDS: OnceLock<(UnixDatagram, UnixDatagram)> = OnceLock::new();
    if let Some((receiver, _)) = ENDS.get() {
        return Ok(receiver);
    }
    // Who is here has the timer for himself.
    let (receiver, _) = ENDS.get_or_init({
        let pair = UnixDatagram::pair()?;
        || pair
    });
    SENDER.store(ENDS.get().expect("made above").1.as_raw_fd(), Ordering::Release);
    Ok(receiver)
}

/// Sets the handler of SIGPROF, with calls of the system begun anew where the system can do that.
fn handle() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_tick;
    // SAFETY: a `sigaction` of zeroes is one without flags and with an empty mask; the pointers live for the call, and the
    // handler does only what a handler may (see `on_tick`).
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut())
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_timer(period: Duration) -> io::Result<()> {
    let interval = libc::timeval { tv_sec: 0, tv_usec: libc::suseconds_t::from(period.subsec_micros()) };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: reads `timer`, which lives for the call, and writes nothing back.
    let set = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs on whatever thread the CPU was with, amid anything: atomics and calls of the system only, all of which a handler may
/// make (signal-safety(7)). Leaves `errno` as it was.
extern "C" fn on_tick(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (round, sender) = (ROUND.load(Ordering::Acquire), SENDER.load(Ordering::Acquire));
    if round == 0 || sender < 0 || context.is_null() {
        return;
    }
    // SAFETY: `errno` of this thread is always there; the system gives a handler with SA_SIGINFO a `ucontext_t`, for as long as
    // it runs; `gettid` cannot fail.
    let (errno, mut head) = unsafe {
        let thread = u64::from(libc::gettid().cast_unsigned());
        (*libc::__errno_location(), head(&*context.cast::<libc::ucontext_t>(), round, thread))
    };
    let mut end = (head.stack + STACK_BYTES_MAX as u64) & !(PAGE_BYTES - 1);
    let sent = loop {
        let length = end.saturating_sub(head.stack) as usize;
        let mut parts = [
            libc::iovec { iov_base: (&raw mut head).cast(), iov_len: HEAD_BYTES },
            libc::iovec { iov_base: head.stack as *mut libc::c_void, iov_len: length },
        ];
        // SAFETY: a message of zeroes is an empty one. The system reads both parts; where the second reaches beyond the stack
        // into memory that is not there, it says so (EFAULT) and has sent nothing.
        let sent = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = parts.as_mut_ptr();
            message.msg_iovlen = parts.len();
            libc::sendmsg(sender, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        // SAFETY: as above.
        let is_beyond = sent < 0 && unsafe { *libc::__errno_location() } == libc::EFAULT;
        if !is_beyond || length == 0 {
            break sent >= 0;
        }
        end = end.saturating_sub(PAGE_BYTES).max(head.stack);
    };
    if !sent {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

#[cfg(target_arch = "x86_64")]
fn head(context: &libc::ucontext_t, round: u64, thread: u64) -> Head {
    let register = |number: libc::c_int| context.uc_mcontext.gregs[number as usize].cast_unsigned();
    Head {
        round,
        thread,
        instruction: register(libc::REG_RIP),
        stack: register(libc::REG_RSP),
        frame: register(libc::REG_RBP),
        link: 0,
    }
}

#[cfg(target_arch = "aarch64")]
fn head(context: &libc::ucontext_t, round: u64, thread: u64) -> Head {
    let registers = &context.uc_mcontext;
    Head {
        round,
        thread,
        instruction: registers.pc,
        stack: registers.sp,
        frame: registers.regs[29],
        link: registers.regs[30],
    }
}
