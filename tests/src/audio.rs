//! A tone to speak with, and whether it was heard.

use std::f64::consts::TAU;
use std::path::Path;

/// Samples a second of every file here: G.711's.
const RATE: u32 = 8000;

/// Writes a mono 16-bit WAV file with a sine tone.
///
/// # Panics
/// When the file cannot be written.
pub fn write_tone(path: &Path, hertz: f64, seconds: u32) {
    let samples = RATE * seconds;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"RIFF");
    bytes.extend_from_slice(&(36 + samples * 2).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt ");
    bytes.extend_from_slice(&16_u32.to_le_bytes());
    bytes.extend_from_slice(&1_u16.to_le_bytes()); // PCM
    bytes.extend_from_slice(&1_u16.to_le_bytes()); // mono
    bytes.extend_from_slice(&RATE.to_le_bytes());
    bytes.extend_from_slice(&(RATE * 2).to_le_bytes());
    bytes.extend_from_slice(&2_u16.to_le_bytes());
    bytes.extend_from_slice(&16_u16.to_le_bytes());
    bytes.extend_from_slice(b"data");
    bytes.extend_from_slice(&(samples * 2).to_le_bytes());
    for sample in 0..samples {
        let value = (TAU * hertz * f64::from(sample) / f64::from(RATE)).sin() * 8000.0;
        #[expect(clippy::cast_possible_truncation, reason = "at most 8000")]
        bytes.extend_from_slice(&(value as i16).to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

/// How many seconds of a mono 16-bit WAV file hold that tone, rather than
/// silence or another sound (Goertzel's filter over 20 ms blocks).
///
/// # Panics
/// When the file cannot be read.
#[must_use]
pub fn seconds_of_tone(path: &Path, hertz: f64) -> f64 {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rate = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
    let samples: Vec<f64> = bytes[44..]
        .chunks_exact(2)
        .map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]])))
        .collect();
    let block = rate as usize / 50;
    let coefficient = 2.0 * (TAU * hertz / f64::from(rate)).cos();
    let mut heard = 0;
    for samples in samples.chunks_exact(block) {
        let (mut before, mut last) = (0.0, 0.0);
        for sample in samples {
            let next = sample + coefficient * last - before;
            before = last;
            last = next;
        }
        let tone = (last * last + before * before - coefficient * last * before) * 2.0
            / samples.len() as f64;
        let all: f64 = samples.iter().map(|sample| sample * sample).sum();
        if all / samples.len() as f64 > 10_000.0 && tone > all * 0.8 {
            heard += 1;
        }
    }
    f64::from(heard) / 50.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_its_own_tone_and_no_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_tone(file.path(), 440.0, 2);
        assert!(seconds_of_tone(file.path(), 440.0) > 1.9);
        assert!(seconds_of_tone(file.path(), 1000.0) < 0.1);
    }
}
