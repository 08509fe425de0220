//! Text of strangers, as much of it as a log has room for.

use std::fmt::{self, Display, Formatter, Write};

/// Bytes of a stranger's text in a line; what is longer ends in `… (so many bytes)`. Escaped it may be six times as long.
pub const FOREIGN_TEXT_BYTES_MAX: usize = 256;

/// Shows no more of a text than a line has room for.
#[derive(Clone, Copy, Debug)]
pub struct ForeignText<T>(pub T);

impl<T: Display> Display for ForeignText<T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let mut head = Head { formatter, shown: 0, bytes: 0 };
        write!(head, "{}", self.0)?;
        let Head { formatter, shown, bytes } = head;
        if shown < bytes { write!(formatter, "… ({bytes} bytes)") } else { Ok(()) }
    }
}

/// Passes the first bytes on and counts all.
struct Head<'a, 'b> {
    formatter: &'a mut Formatter<'b>,
    shown: usize,
    bytes: usize,
}

impl Write for Head<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_whole = self.shown == self.bytes;
        self.bytes += text.len();
        if !is_whole {
            return Ok(());
        }
        let end = text.floor_char_boundary(FOREIGN_TEXT_BYTES_MAX - self.shown);
        self.shown += end;
        self.formatter.write_str(&text[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters_and_their_length_is_said() {
        let shown = |text: &str| ForeignText(text).to_string();
        assert_eq!(shown("ann"), "ann");
        let fits = "a".repeat(FOREIGN_TEXT_BYTES_MAX);
        assert_eq!(shown(&fits), fits);
        assert_eq!(shown(&format!("{fits}b")), format!("{fits}… (257 bytes)"));
        let wide = "ä".repeat(FOREIGN_TEXT_BYTES_MAX);
        assert_eq!(shown(&format!("a{wide}")), format!("a{}… (513 bytes)", "ä".repeat(127)));
        assert_eq!(shown(&"x".repeat(2 << 20)).len(), FOREIGN_TEXT_BYTES_MAX + "… (2097152 bytes)".len());
    }

    #[test]
    fn what_is_written_in_pieces_is_cut_as_a_whole() {
        let piece = "p".repeat(200);
        let text = ForeignText(format_args!("{piece}{}{piece}", "ä".repeat(28) + "äx")).to_string();
        assert_eq!(text, format!("{piece}{}… (459 bytes)", "ä".repeat(28)));
    }
}
