//! Reads one run from its start to its end.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use super::block::decode_block;
use super::error::RunError;
use super::format::{FRAME_LEN, Frame, FrameKind, HEADER_LEN, Header, HeaderError, TRAILER_LEN, Trailer, run_name};
use super::record::Record;
use super::run_meta::RunMeta;
use crate::disk::{FileId, Io, IoOutput};

/// What a cursor needs before it goes on.
pub(super) enum Advance {
    /// Nothing: there is a record at its head.
    Ready,
    /// The completion of this.
    Submit(Io),
    /// Nothing: the run was read to its end, and is what its meta says.
    End,
}

/// A place in a run, with the records of one block ahead.
pub(super) struct RunCursor {
    name: String,
    meta: RunMeta,
    chunk_bytes: usize,
    file: Option<FileId>,
    header: Option<Header>,
    /// Read, not decoded.
    buffer: BytesMut,
    /// Offset in the file of the buffer's first byte.
    offset: u64,
    /// Of the bytes before `offset`.
    hasher: crc32fast::Hasher,
    ahead: VecDeque<Record>,
    /// Of the value of the next block's first record, what stands before that block.
    parts: BytesMut,
    last_key: Option<Bytes>,
    seen: Trailer,
    ended: bool,
}

impl RunCursor {
    /// A cursor that reads about `chunk_bytes` at a time.
    pub(super) fn new(directory: &str, meta: RunMeta, chunk_bytes: usize) -> Self {
        Self {
            name: run_name(directory, meta.number),
            meta,
            chunk_bytes,
            file: None,
            header: None,
            buffer: BytesMut::new(),
            offset: 0,
            hasher: crc32fast::Hasher::new(),
            ahead: VecDeque::new(),
            parts: BytesMut::new(),
            last_key: None,
            seen: Trailer { records: 0, removals: 0, blocks: 0, crc: 0 },
            ended: false,
        }
    }

    /// The next record, if one is ahead.
    pub(super) fn head(&self) -> Option<&Record> {
        self.ahead.front()
    }

    /// Takes the next record, if one is ahead.
    pub(super) fn pop(&mut self) -> Option<Record> {
        self.ahead.pop_front()
    }

    /// Works towards a record at the head: at most one frame.
    pub(super) fn advance(&mut self) -> Result<Advance, RunError> {
        if !self.ahead.is_empty() {
            return Ok(Advance::Ready);
        }
        let Some(file) = self.file else {
            let open = Io::Open { name: self.name.clone(), create: false };
            return Ok(if self.ended { Advance::End } else { Advance::Submit(open) });
        };
        if self.ended {
            return Ok(Advance::Submit(Io::Close { file }));
        }
        match self.decode()? {
            None if self.ended => Ok(Advance::Submit(Io::Close { file })),
            None => Ok(Advance::Ready),
            Some(needed) => self.read(file, needed).map(Advance::Submit),
        }
    }

    /// Takes over the completion of what [`Self::advance`] submitted.
    pub(super) fn complete(&mut self, completion: io::Result<IoOutput>) -> Result<(), RunError> {
        match completion.map_err(|source| RunError::Io { number: self.meta.number, source })? {
            IoOutput::Opened { file, length } => {
                self.file = Some(file);
                if length != self.meta.length { Err(self.damaged("another length than it had")) } else { Ok(()) }
            }
            IoOutput::Read(bytes) => {
                self.buffer.extend_from_slice(&bytes);
                Ok(())
            }
            _ => {
                self.file = None;
                Ok(())
            }
        }
    }

    /// What closes its file, if it is open.
    pub(super) fn close(&mut self) -> Option<Io> {
        self.file.take().map(|file| Io::Close { file })
    }

    /// The read of at least `needed` bytes more.
    fn read(&self, file: FileId, needed: usize) -> Result<Io, RunError> {
        let offset = self.offset + self.buffer.len() as u64;
        let rest = self.meta.length.saturating_sub(offset);
        if (needed as u64) > rest {
            return Err(self.damaged("it ends early"));
        }
        let length = rest.min(needed.max(self.chunk_bytes) as u64) as usize;
        Ok(Io::Read { file, offset, length })
    }

    /// Decodes header and frame at the start of the buffer; answers how many bytes it lacks for that.
    fn decode(&mut self) -> Result<Option<usize>, RunError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = self.buffer.first_chunk::<HEADER_LEN>() else {
                    return Ok(Some(HEADER_LEN - self.buffer.len()));
                };
                let header = self.check_header(bytes)?;
                self.header = Some(header);
                self.consume(HEADER_LEN);
                header
            }
        };
        let Some(bytes) = self.buffer.first_chunk::<FRAME_LEN>() else {
            return Ok(Some(FRAME_LEN - self.buffer.len()));
        };
        let frame = Frame::decode(bytes).map_err(|reason| self.damaged(reason))?;
        let length = FRAME_LEN + frame.length as usize;
        if self.buffer.len() < length {
            return Ok(Some(length - self.buffer.len()));
        }
        if frame.crc_of(&self.buffer[FRAME_LEN..length], header.salt, self.offset) != frame.crc {
            return Err(self.damaged("block CRC mismatch"));
        }
        match frame.kind {
            FrameKind::Part => self.take_part(frame, length)?,
            FrameKind::Records => self.take_block(frame, length)?,
            FrameKind::Trailer => self.check_trailer(length)?,
        }
        Ok(None)
    }

    fn check_header(&self, bytes: &[u8; HEADER_LEN]) -> Result<Header, RunError> {
        let number = self.meta.number;
        match Header::decode(bytes) {
            Ok(header) if header.number == number => Ok(header),
            Ok(_) => Err(self.damaged("the file of another run")),
            Err(HeaderError::Damaged(reason)) => Err(self.damaged(reason)),
            Err(HeaderError::Newer { version, features }) => Err(RunError::Newer { number, version, features }),
        }
    }

    fn take_part(&mut self, frame: Frame, length: usize) -> Result<(), RunError> {
        if frame.records != 0 || frame.length == 0 {
            return Err(self.damaged("an impossible part of a value"));
        }
        let frame = self.consume(length);
        self.parts.extend_from_slice(&frame[FRAME_LEN..]);
        self.seen.blocks += 1;
        Ok(())
    }

    fn take_block(&mut self, frame: Frame, length: usize) -> Result<(), RunError> {
        let out_of_order = self.damaged("keys do not ascend");
        let payload = self.consume(length).slice(FRAME_LEN..);
        let mut records = decode_block(&payload, frame.records).map_err(|reason| self.damaged(reason))?;
        if !self.parts.is_empty() {
            let Some(value) = &mut records[0].value else {
                return Err(self.damaged("a removed key with a part of a value"));
            };
            self.parts.extend_from_slice(value);
            *value = self.parts.split().freeze();
        }
        let (first, last) = (records.first().map(|record| &record.key), records.last().map(|record| &record.key));
        if self.last_key.is_some() && first <= self.last_key.as_ref() {
            return Err(out_of_order);
        }
        self.last_key = last.cloned();
        self.seen.records += records.len() as u64;
        self.seen.removals += records.iter().filter(|record| record.value.is_none()).count() as u64;
        self.seen.blocks += 1;
        self.ahead = records.into();
        Ok(())
    }

    fn check_trailer(&mut self, length: usize) -> Result<(), RunError> {
        self.seen.crc = self.hasher.clone().finalize();
        if !self.parts.is_empty() {
            return Err(self.damaged("a part of a value without its record"));
        }
        if length != FRAME_LEN + TRAILER_LEN || self.buffer[FRAME_LEN..length] != self.seen.encode() {
            return Err(self.damaged("the trailer does not fit what was read"));
        }
        if self.seen.records != self.meta.records || self.seen.crc != self.meta.crc {
            return Err(self.damaged("not the run that was meant"));
        }
        if self.offset + length as u64 != self.meta.length {
            return Err(self.damaged("bytes after the trailer"));
        }
        self.buffer.clear();
        self.last_key = None;
        self.ended = true;
        Ok(())
    }

    fn consume(&mut self, length: usize) -> Bytes {
        let bytes = self.buffer.split_to(length).freeze();
        self.hasher.update(&bytes);
        self.offset += length as u64;
        bytes
    }

    fn damaged(&self, reason: &'static str) -> RunError {
        RunError::Damaged { number: self.meta.number, offset: self.offset, reason }
    }
}
