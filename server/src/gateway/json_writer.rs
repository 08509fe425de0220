//! A message as JSON, written a piece at a time straight from its bytes.
//!
//! An answer may be hundreds of MiB, and stands in memory once: as what is stored, counted by the budget of answers for as long as
//! any of it is here. So its JSON is never whole. A piece is written when the client has taken the one before, and what was
//! written is let go of; what stands here is a piece of JSON and where in the message it ended, however large a value is.
//!
//! Rules of protobuf's JSON, as far as answers of etcd need them: fields under their names in the `.proto` file, numbers of 64
//! bits as strings, bytes in base64, enumerations by name, what is zero left out. Fields are written as they come, so the message
//! has to be one that a server made: a list in one piece, and no field twice.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, BytesMut};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::Serialize;

use super::failure::Failure;
use crate::api::pieces::Pieces;

/// What is written at a time, about; a text is written whole.
pub(super) const PIECE_BYTES: usize = 32 << 10;
/// Messages in messages: transactions of transactions, two for each, and what stands in the last.
const LEVELS_MAX: usize = 2 * basalt_proto::TXN_NESTING_MAX + 8;
/// Bytes that base64 writes without padding.
const GROUP_BYTES: usize = 3;

/// A message that is being written.
#[derive(Debug)]
pub struct JsonWriter {
    message: Pieces,
    levels: Vec<Level>,
    has_begun: bool,
    /// What is left of the bytes that are being written.
    value_bytes: Option<usize>,
}

/// A message in a message.
#[derive(Debug)]
struct Level {
    descriptor: MessageDescriptor,
    /// What of the outermost message is left when this one ends.
    end: usize,
    is_empty: bool,
    /// The list that has begun, by its number.
    list: Option<u32>,
}

impl JsonWriter {
    pub(super) fn new(descriptor: MessageDescriptor, message: Pieces) -> Self {
        let level = Level { descriptor, end: 0, is_empty: true, list: None };
        Self { message, levels: vec![level], has_begun: false, value_bytes: None }
    }

    /// Whether all is written.
    pub(super) fn is_done(&self) -> bool {
        self.levels.is_empty()
    }

    /// Appends the next piece to `json`. To be called until it is done.
    ///
    /// # Errors
    /// [`Failure`] of what is no such message: the server's fault.
    pub(super) fn write(&mut self, json: &mut BytesMut) -> Result<(), Failure> {
        let begun = json.len();
        if !std::mem::replace(&mut self.has_begun, true) {
            json.put_u8(b'{');
        }
        while !self.is_done() && json.len() < begun + PIECE_BYTES {
            match self.value_bytes {
                Some(left) => self.write_bytes(left, begun + PIECE_BYTES, json),
                None => self.write_next(json)?,
            }
        }
        Ok(())
    }

    fn write_next(&mut self, json: &mut BytesMut) -> Result<(), Failure> {
        let level = self.levels.last_mut().expect("the caller has looked");
        if self.message.remaining() == level.end {
            if level.list.is_some() {
                json.put_u8(b']');
            }
            json.put_u8(b'}');
            self.levels.pop();
            return Ok(());
        }
        let key = varint(&mut self.message, level.end)?;
        let number = u32::try_from(key >> 3).map_err(|_| fault("a field without a number"))?;
        let wire = Wire::of(key)?;
        let Some(field) = level.descriptor.get_field(number) else { return self.skip(wire) };
        if field.is_list() { self.write_element(&field, wire, json) } else { self.write_field(&field, wire, json) }
    }

    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("a field stands in a message")
    }

    /// Ends the list before, if one has begun, and writes the field's name.
    fn write_name(&mut self, field: &FieldDescriptor, json: &mut BytesMut) {
        let level = self.level();
        if level.list.take().is_some() {
            json.put_u8(b']');
        }
        if !std::mem::replace(&mut level.is_empty, false) {
            json.put_u8(b',');
        }
        json.put_u8(b'"');
        json.put_slice(field.name().as_bytes());
        json.put_slice(b"\":");
    }

    fn write_field(&mut self, field: &FieldDescriptor, wire: Wire, json: &mut BytesMut) -> Result<(), Failure> {
        if wire == Wire::Length {
            let bytes = self.length()?;
            if bytes == 0 && !field.supports_presence() {
                return Ok(());
            }
            self.write_name(field, json);
            return self.write_long(&field.kind(), bytes, json);
        }
        let number = self.number(wire)?;
        if number != 0 || field.supports_presence() {
            self.write_name(field, json);
            write_number(&field.kind(), number, json)?;
        }
        Ok(())
    }

    fn write_element(&mut self, field: &FieldDescriptor, wire: Wire, json: &mut BytesMut) -> Result<(), Failure> {
        let is_first = self.level().list != Some(field.number());
        let bytes = if wire == Wire::Length { self.length()? } else { 0 };
        let is_long = matches!(field.kind(), Kind::Message(_) | Kind::Bytes | Kind::String);
        if wire == Wire::Length && !is_long && bytes == 0 {
            return Ok(());
        }
        if is_first {
            self.write_name(field, json);
            json.put_u8(b'[');
            self.level().list = Some(field.number());
        } else {
            json.put_u8(b',');
        }
        match wire {
            Wire::Length if is_long => self.write_long(&field.kind(), bytes, json),
            // Numbers stand in one field, without heads of their own.
            Wire::Length => {
                let end = self.message.remaining() - bytes;
                while self.message.remaining() > end {
                    let number = number(&mut self.message, Wire::of_numbers(&field.kind()), end)?;
                    write_number(&field.kind(), number, json)?;
                    if self.message.remaining() > end {
                        json.put_u8(b',');
                    }
                }
                Ok(())
            }
            _ => {
                let number = self.number(wire)?;
                write_number(&field.kind(), number, json)
            }
        }
    }

    /// Writes a value of so many bytes, or begins it.
    fn write_long(&mut self, kind: &Kind, bytes: usize, json: &mut BytesMut) -> Result<(), Failure> {
        match kind {
            Kind::Message(descriptor) => {
                if self.levels.len() == LEVELS_MAX {
                    return Err(fault("messages nested too deep"));
                }
                json.put_u8(b'{');
                let end = self.message.remaining() - bytes;
                self.levels.push(Level { descriptor: descriptor.clone(), end, is_empty: true, list: None });
            }
            Kind::Bytes => {
                json.put_u8(b'"');
                self.value_bytes = Some(bytes);
            }
            Kind::String => {
                let text = self.message.copy_to_bytes(bytes);
                let text = std::str::from_utf8(&text).map_err(|error| fault(&error))?;
                write_json(text, json)?;
            }
            _ => return Err(fault("a number that is long")),
        }
        Ok(())
    }

    /// Writes on at bytes of which so many are left, until `json` is so long.
    fn write_bytes(&mut self, left: usize, json_bytes: usize, json: &mut BytesMut) {
        let room = (json_bytes - json.len()).div_ceil(GROUP_BYTES + 1) * GROUP_BYTES;
        let taken = if left <= room { left } else { room };
        let start = json.len();
        json.resize(start + taken.div_ceil(GROUP_BYTES) * (GROUP_BYTES + 1), 0);
        let content = self.message.copy_to_bytes(taken);
        let written = STANDARD.encode_slice(&content, &mut json[start..]).expect("the room is what base64 needs");
        json.truncate(start + written);
        self.value_bytes = Some(left - taken).filter(|left| *left > 0);
        if self.value_bytes.is_none() {
            json.put_u8(b'"');
        }
    }

    fn skip(&mut self, wire: Wire) -> Result<(), Failure> {
        match wire {
            Wire::Length => {
                let bytes = self.length()?;
                self.message.advance(bytes);
            }
            _ => _ = self.number(wire)?,
        }
        Ok(())
    }

    /// How long what follows is.
    fn length(&mut self) -> Result<usize, Failure> {
        let end = self.level().end;
        let bytes = varint(&mut self.message, end)?;
        let left = self.message.remaining() - end;
        usize::try_from(bytes).ok().filter(|bytes| *bytes <= left).ok_or_else(|| fault("a field that is cut"))
    }

    fn number(&mut self, wire: Wire) -> Result<u64, Failure> {
        let end = self.level().end;
        number(&mut self.message, wire, end)
    }
}

/// How a value stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Length,
    Fixed32,
}

impl Wire {
    fn of(key: u64) -> Result<Self, Failure> {
        match key & 7 {
            0 => Ok(Self::Varint),
            1 => Ok(Self::Fixed64),
            2 => Ok(Self::Length),
            5 => Ok(Self::Fixed32),
            _ => Err(fault("a field of no kind")),
        }
    }

    fn of_numbers(kind: &Kind) -> Self {
        match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Self::Fixed64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Self::Fixed32,
            _ => Self::Varint,
        }
    }
}

/// A number, of a message that ends where so much is left.
fn number(message: &mut Pieces, wire: Wire, end: usize) -> Result<u64, Failure> {
    let left = message.remaining() - end;
    match wire {
        Wire::Varint => varint(message, end),
        Wire::Fixed64 if left >= 8 => Ok(message.get_u64_le()),
        Wire::Fixed32 if left >= 4 => Ok(u64::from(message.get_u32_le())),
        _ => Err(fault("a number that is cut")),
    }
}

fn varint(message: &mut Pieces, end: usize) -> Result<u64, Failure> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        if message.remaining() == end {
            return Err(fault("a number that is cut"));
        }
        let byte = message.get_u8();
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(fault("a number that is too long"))
}

fn write_number(kind: &Kind, number: u64, json: &mut BytesMut) -> Result<(), Failure> {
    // Whoever reads 32 bits of a longer number reads its end.
    let short = number as u32;
    match kind {
        Kind::Bool => write_json(&(number != 0), json),
        Kind::Int32 | Kind::Sfixed32 => write_json(&(short as i32), json),
        Kind::Uint32 | Kind::Fixed32 => write_json(&short, json),
        Kind::Sint32 => write_json(&((short >> 1) as i32 ^ -((short & 1) as i32)), json),
        Kind::Int64 | Kind::Sfixed64 => write_json(&(number as i64).to_string(), json),
        Kind::Uint64 | Kind::Fixed64 => write_json(&number.to_string(), json),
        Kind::Sint64 => write_json(&((number >> 1) as i64 ^ -((number & 1) as i64)).to_string(), json),
        Kind::Enum(values) => match values.get_value(short as i32) {
            Some(value) => write_json(value.name(), json),
            None => write_json(&(short as i32), json),
        },
        // No answer has one.
        Kind::Float | Kind::Double => Err(fault("a fraction")),
        Kind::String | Kind::Bytes | Kind::Message(_) => Err(fault("a number in place of a text")),
    }
}

fn write_json<T: Serialize + ?Sized>(value: &T, json: &mut BytesMut) -> Result<(), Failure> {
    serde_json::to_writer(json.writer(), value).map_err(|error| fault(&error))
}

fn fault(why: &(impl std::fmt::Display + ?Sized)) -> Failure {
    Failure::new(13, format!("basalt: an answer cannot be shown: {why}"))
}

#[cfg(test)]
#[path = "json_writer_tests.rs"]
mod tests;
