//! Text fields: ASCII, left justified and padded with spaces (NVMe Base 2.0, 1.4).

/// Writes a text into a field; what is too long is cut.
pub fn pad(field: &mut [u8], text: &str) {
    field.fill(b' ');
    let length = field.len().min(text.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}
