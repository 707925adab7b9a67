//! One chart of memory over time, as an SVG: stacked layers, the limit, the resident bytes, and the pressure.

use crate::{report::size, timeline::Sample};
use nebula_memory::{ByteSize, PressureLevel};
use std::fmt::{self, Write};

/// Text of 12 units is readable where the chart is as wide as a telephone.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 260.0;
/// The margins of the plot inside the chart.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 36.0;
/// The height of the band that shows the pressure, below the time axis.
const BAND: f64 = 10.0;

/// A layer: its name, its colour, and its bytes in a sample.
pub(crate) struct Layer<'t> {
    pub(crate) name: &'t str,
    pub(crate) colour: &'static str,
    pub(crate) bytes: Box<dyn Fn(&Sample) -> usize + 't>,
}

/// The data of a chart. The samples are not more than its pixels.
pub(crate) struct Chart<'t> {
    pub(crate) id: &'t str,
    pub(crate) title: &'t str,
    /// The description for readers who do not see the chart.
    pub(crate) description: &'t str,
    pub(crate) samples: &'t [Sample],
    /// From the bottom; empty if there was no ledger.
    pub(crate) layers: Vec<Layer<'t>>,
    pub(crate) limit: Option<u64>,
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, samples, .. } = self;
        let highest = samples.iter().map(|sample| sample.total().max(sample.resident)).max();
        let scale = Scale {
            end: samples.last().map_or(1.0, |sample| sample.at.as_secs_f64()).max(1e-3),
            top: as_f64(highest.unwrap_or(0).max(self.limit.unwrap_or(0)).max(1)) * 1.05,
        };
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-text\"><title id=\"{id}-title\">{}</title>\
             <desc id=\"{id}-text\">{}</desc>",
            Escaped(self.title),
            Escaped(self.description),
        )?;
        scale.axes(f)?;
        if !self.layers.is_empty() {
            self.stack(f, &scale)?;
            pressure(f, samples, &scale)?;
        }
        let resident = samples.iter().map(|sample| scale.point(sample, sample.resident));
        writeln!(
            f,
            "<polyline class=\"resident\" points=\"{}\"/>",
            resident.collect::<Vec<_>>().join(" "),
        )?;
        if let Some(limit) = self.limit {
            let (y, right) = (scale.y(as_f64(limit)), WIDTH - RIGHT);
            let label = size(limit);
            writeln!(
                f,
                "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" \
                 stroke-dasharray=\"8 4\"/><text class=\"limit\" x=\"{right}\" y=\"{:.1}\" \
                 text-anchor=\"end\">limit {label}</text>",
                y - 4.0,
            )?;
        }
        f.write_str("</svg>\n")
    }
}

impl Chart<'_> {
    /// Draws the layers, each on top of the previous ones.
    fn stack(&self, f: &mut fmt::Formatter<'_>, scale: &Scale) -> fmt::Result {
        let mut below = vec![0; self.samples.len()];
        for Layer { name, colour, bytes } in &self.layers {
            let lower = below.clone();
            for (sum, sample) in below.iter_mut().zip(self.samples) {
                *sum += bytes(sample) as u64;
            }
            let up = self.samples.iter().zip(&below);
            let down = self.samples.iter().zip(&lower).rev();
            let outline = up.chain(down).map(|(sample, &bytes)| scale.point(sample, bytes));
            writeln!(
                f,
                "<polygon fill=\"{colour}\" points=\"{}\"><title>{}</title></polygon>",
                outline.collect::<Vec<_>>().join(" "),
                Escaped(name),
            )?;
        }
        Ok(())
    }
}

struct Scale {
    /// The time at the right edge in seconds.
    end: f64,
    /// The bytes at the upper edge.
    top: f64,
}

impl Scale {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.end * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, bytes: f64) -> f64 {
        HEIGHT - BOTTOM - bytes / self.top * (HEIGHT - TOP - BOTTOM)
    }

    fn point(&self, sample: &Sample, bytes: u64) -> String {
        format!("{:.1},{:.1}", self.x(sample.at.as_secs_f64()), self.y(as_f64(bytes)))
    }

    fn axes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A power of two that gives four to eight lines.
        let step = (self.top / 4.0).log2().floor().exp2();
        let lines = (0_u32..).map(|line| f64::from(line) * step);
        for bytes in lines.take_while(|&bytes| bytes <= self.top) {
            let (y, label) = (self.y(bytes), mebibytes(bytes));
            writeln!(
                f,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
            )?;
        }
        for part in 0..=3_u32 {
            let seconds = self.end * f64::from(part) / 3.0;
            let (x, y) = (self.x(seconds), HEIGHT - BOTTOM + BAND + 16.0);
            let label = match self.end {
                ..1.0 => format!("{} ms", (seconds * 1e5).round() / 1e2),
                _ => format!("{seconds:.2} s"),
            };
            // The last label ends where the plot ends.
            let anchor = if part == 3 { "end" } else { "middle" };
            writeln!(
                f,
                "<text class=\"time\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{label}</text>"
            )?;
        }
        Ok(())
    }
}

/// Draws the pressure as a band below the time axis.
fn pressure(f: &mut fmt::Formatter<'_>, samples: &[Sample], scale: &Scale) -> fmt::Result {
    let y = HEIGHT - BOTTOM + 2.0;
    for same in samples.chunk_by(Sample::is_as_tight_as) {
        let from = scale.x(same[0].at.as_secs_f64());
        // The band ends where the next level begins.
        let next = samples.iter().find(|sample| sample.at > same[same.len() - 1].at);
        let to = next.map_or(WIDTH - RIGHT, |next| scale.x(next.at.as_secs_f64()));
        let (level, colour) = (same[0].level, level_colour(same[0].level));
        let why = same[0].cause.map_or_else(String::new, |cause| format!(": {cause}"));
        writeln!(
            f,
            "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAND}\" fill=\"{colour}\">\
             <title>pressure {level}{why}</title></rect>",
            to - from,
        )?;
    }
    Ok(())
}

pub(crate) const fn level_colour(level: PressureLevel) -> &'static str {
    match level {
        PressureLevel::Normal => "#e5f5e0",
        PressureLevel::Elevated => "#fed976",
        PressureLevel::High => "#fd8d3c",
        PressureLevel::Critical => "#bd0026",
    }
}

fn mebibytes(bytes: f64) -> String {
    match bytes {
        0.0 => "0".to_owned(),
        _ => format!("{} MiB", bytes / as_f64(ByteSize::mib(1).as_u64())),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture shows a thousandth at best")]
const fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// Text without markup.
pub(crate) struct Escaped<'t>(pub(crate) &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            other => f.write_char(other),
        })
    }
}
