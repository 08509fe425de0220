//! Which files the code of this process comes from, where they lie in memory, and how their frames are unwound.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use framehop::{
    ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Module, UnwindRegsNative, Unwinder, UnwinderNative,
};
use object::elf::PF_X;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSegment, ReadCache, SegmentFlags};

use super::error::ProfileError;
use super::ticks::Tick;

/// Frames of one stack at most.
const FRAMES_MAX: usize = 128;

/// Executable memory that was mapped from a file.
pub(super) struct Mapped {
    /// Where it lies.
    pub(super) addresses: Range<u64>,
    /// Where in the file it begins.
    pub(super) file_offset: u64,
    /// What is to be added to an address in the file to have that in memory.
    pub(super) bias: u64,
    /// The file, under its name.
    pub(super) name: String,
    /// The file, where it can be opened even if its name now is another's.
    pub(super) path: PathBuf,
}

/// All code of this process.
pub(super) struct Modules {
    mapped: Vec<Mapped>,
    unwinder: UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>,
    cache: framehop::CacheNative<MayAllocateDuringUnwind>,
}

impl Modules {
    /// Reads the memory map, and of each file how its frames are unwound. A file that cannot be read has none: stacks end there.
    ///
    /// # Errors
    /// The system's, if there is no memory map.
    pub(super) fn read() -> Result<Self, ProfileError> {
        let maps = fs::read_to_string("/proc/self/maps").map_err(ProfileError::system("/proc/self/maps"))?;
        let own = fs::read_link("/proc/self/exe").unwrap_or_default();
        let mut modules =
            Self { mapped: Vec::new(), unwinder: UnwinderNative::new(), cache: framehop::CacheNative::new() };
        for (addresses, file_offset, name) in maps.lines().filter_map(executable) {
            let is_own = own.as_os_str() == name;
            let path = if is_own { PathBuf::from("/proc/self/exe") } else { PathBuf::from(name) };
            let Some((bias, sections)) = unwinding(&path, addresses.start, file_offset) else { continue };
            modules.unwinder.add_module(Module::new(name.to_owned(), addresses.clone(), bias, sections));
            modules.mapped.push(Mapped { addresses, file_offset, bias, name: name.to_owned(), path });
        }
        Ok(modules)
    }

    /// What is mapped, in the order of addresses.
    pub(super) fn mapped(&self) -> &[Mapped] {
        &self.mapped
    }

    /// The addresses of a stack from its innermost frame on: where each was, or is to go on less one byte.
    pub(super) fn frames(&mut self, tick: &Tick<'_>) -> Vec<u64> {
        #[cfg(target_arch = "x86_64")]
        let registers = UnwindRegsNative::new(tick.instruction, tick.stack, tick.frame);
        #[cfg(target_arch = "aarch64")]
        let registers = UnwindRegsNative::new(tick.link, tick.stack, tick.frame);
        let mut word = |address: u64| {
            let at = usize::try_from(address.checked_sub(tick.stack).ok_or(())?).map_err(|_| ())?;
            let bytes = tick.bytes.get(at..at.checked_add(8).ok_or(())?).ok_or(())?;
            Ok(u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
        };
        let mut frames = self.unwinder.iter_frames(tick.instruction, registers, &mut self.cache, &mut word);
        let mut addresses = Vec::with_capacity(32);
        // An error says that the rest of the stack is not known.
        while let Ok(Some(frame)) = frames.next() {
            addresses.push(frame.address_for_lookup());
            if addresses.len() == FRAMES_MAX {
                break;
            }
        }
        addresses
    }
}

/// Addresses, offset and file of a line of the memory map, if a file's code lies there.
fn executable(line: &str) -> Option<(Range<u64>, u64, &str)> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let (rights, offset) = (fields.next()?, fields.next()?);
    let name = fields.nth(2)?.trim_start();
    let number = |text| u64::from_str_radix(text, 16).ok();
    (rights.contains('x') && name.starts_with('/')).then_some(())?;
    Some((number(start)?..number(end)?, number(offset)?, name))
}

/// How far a file was moved whose code at `file_offset` lies at `start`, and what says how its frames are unwound.
fn unwinding(path: &Path, start: u64, file_offset: u64) -> Option<(u64, ExplicitModuleSectionInfo<Vec<u8>>)> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let file = ElfFile64::<object::Endianness, _>::parse(&cache).ok()?;
    let code = file.segments().find(|segment| {
        let (offset, length) = segment.file_range();
        let is_code = matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0);
        // Mappings begin at a page: before the segment, if that does not.
        is_code && file_offset <= offset && offset < file_offset + length.max(1) && offset - file_offset < (64 << 10)
    })?;
    let stated_start = code.address().checked_sub(code.file_range().0 - file_offset)?;
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        let addresses = section.address()..section.address().checked_add(section.size())?;
        Some((addresses, section.data().ok()?.to_vec()))
    };
    let (eh_frame_svma, eh_frame) = section(".eh_frame").unzip();
    let (eh_frame_hdr_svma, eh_frame_hdr) = section(".eh_frame_hdr").unzip();
    let text = file.section_by_name(".text");
    let sections = ExplicitModuleSectionInfo {
        text_svma: text.map(|text| text.address()..text.address() + text.size()),
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        ..ExplicitModuleSectionInfo::default()
    };
    Some((start.wrapping_sub(stated_start), sections))
}
