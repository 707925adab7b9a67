//! Memory over time as an SVG in one self-contained HTML file: the components as stacked layers, the limit, the
//! resident bytes, and the pressure.

use crate::{
    engine::COMPONENTS,
    report::UNUSED,
    timeline::{LAYERS, Sample, Timeline},
};
use nebula_memory::{ByteSize, PressureLevel};
use std::fmt::{self, Write};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
/// The margins of the plot inside the picture.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 84.0;
/// The height of the band that shows the pressure, below the time axis.
const BAND: f64 = 10.0;

/// The most points: more of them than pixels would not be visible.
const POINTS: usize = 480;

/// The colours of the layers, from the bottom. Colour-blind readers can tell them apart (Okabe and Ito, 2008).
const COLOURS: [&str; LAYERS] = ["#999999", "#cc79a7", "#e69f00", "#56b4e9", "#009e73", "#e0e0e0"];

fn layer_names() -> impl Iterator<Item = &'static str> {
    COMPONENTS.into_iter().chain([UNUSED])
}

/// The data of a picture.
pub(crate) struct Picture<'t> {
    pub(crate) timeline: &'t Timeline,
    /// `None` if there was no ledger.
    pub(crate) limit: Option<u64>,
    /// The report, shown below the picture.
    pub(crate) text: String,
}

impl fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <title>Memory over time</title>\n\
             <style>body{font:14px sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
             svg{width:100%;height:auto}pre{overflow-x:auto}</style>\n\
             <h1>Memory over time</h1>\n",
        )?;
        self.svg(f)?;
        if self.limit.is_some() {
            f.write_str(
                "<p>The height of the stack is the ledger's own total. Its parts are read one after \
                 the other: where memory moved meanwhile, the upper ones are cut to fit.</p>\n",
            )?;
        }
        write!(f, "<pre>{}</pre>\n</html>\n", Escaped(&self.text))
    }
}

impl Picture<'_> {
    fn svg(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = thin(&self.timeline.samples);
        let highest = samples.iter().map(|sample| sample.total().max(sample.resident)).max();
        let scale = Scale {
            end: samples.last().map_or(1.0, |sample| sample.at.as_secs_f64()).max(1e-3),
            top: as_f64(highest.unwrap_or(0).max(self.limit.unwrap_or(0)).max(1)) * 1.05,
        };
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>",
        )?;
        scale.axes(f)?;
        if self.limit.is_some() {
            stack(f, &samples, &scale)?;
            pressure(f, &samples, &scale)?;
        }
        let resident = samples.iter().map(|sample| scale.point(sample, sample.resident));
        writeln!(
            f,
            "<polyline fill=\"none\" stroke=\"black\" stroke-width=\"1.5\" points=\"{}\"/>",
            resident.collect::<Vec<_>>().join(" "),
        )?;
        if let Some(limit) = self.limit {
            let (y, right) = (scale.y(as_f64(limit)), WIDTH - RIGHT);
            let label = ByteSize::b(limit).display().iec();
            writeln!(
                f,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#d55e00\" \
                 stroke-width=\"2\" stroke-dasharray=\"8 4\"/>\
                 <text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#d55e00\" \
                 stroke=\"white\" stroke-width=\"3\" paint-order=\"stroke\">limit {label}</text>",
                y - 5.0,
            )?;
        }
        legend(f, self.limit.is_some())?;
        f.write_str("</svg>\n")
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
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
            )?;
        }
        for part in 0..=4_u32 {
            let seconds = self.end * f64::from(part) / 4.0;
            let (x, y) = (self.x(seconds), HEIGHT - BOTTOM + BAND + 18.0);
            let label = match self.end {
                ..1.0 => format!("{} ms", (seconds * 1e5).round() / 1e2),
                _ => format!("{seconds:.2} s"),
            };
            writeln!(f, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>")?;
        }
        Ok(())
    }
}

/// Draws the layers, each on top of the previous ones.
fn stack(f: &mut fmt::Formatter<'_>, samples: &[Sample], scale: &Scale) -> fmt::Result {
    let mut below = vec![0; samples.len()];
    for (layer, (name, colour)) in layer_names().zip(COLOURS).enumerate() {
        let lower = below.clone();
        for (sum, sample) in below.iter_mut().zip(samples) {
            *sum += sample.used[layer] as u64;
        }
        let up = samples.iter().zip(&below);
        let down = samples.iter().zip(&lower).rev();
        let outline = up.chain(down).map(|(sample, &bytes)| scale.point(sample, bytes));
        writeln!(
            f,
            "<polygon fill=\"{colour}\" points=\"{}\"><title>{name}</title></polygon>",
            outline.collect::<Vec<_>>().join(" "),
        )?;
    }
    Ok(())
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

/// Writes one line for the layers and curves, and one for the colours of the band.
fn legend(f: &mut fmt::Formatter<'_>, ledger: bool) -> fmt::Result {
    let y = HEIGHT - 28.0;
    let resident = [("resident", "black")];
    if !ledger {
        return entries(f, y, "", resident.into_iter());
    }
    let lines = resident.into_iter().chain([("limit", "#d55e00")]);
    entries(f, y, "", layer_names().zip(COLOURS).chain(lines))?;
    let levels = PressureLevel::ALL.iter().map(|&level| (level.as_str(), level_colour(level)));
    entries(f, HEIGHT - 10.0, "pressure", levels)
}

fn entries(
    f: &mut fmt::Formatter<'_>,
    y: f64,
    title: &str,
    entries: impl Iterator<Item = (&'static str, &'static str)>,
) -> fmt::Result {
    let width = |text: &str| 6.0 * as_f64(text.len() as u64);
    let mut x = LEFT;
    if !title.is_empty() {
        writeln!(f, "<text x=\"{x:.0}\" y=\"{y}\">{title}:</text>")?;
        x += 14.0 + width(title);
    }
    for (name, colour) in entries {
        writeln!(
            f,
            "<rect x=\"{x:.0}\" y=\"{:.0}\" width=\"10\" height=\"10\" fill=\"{colour}\" \
             stroke=\"#888\"/><text x=\"{:.0}\" y=\"{y}\">{name}</text>",
            y - 9.0,
            x + 14.0,
        )?;
        x += 28.0 + width(name);
    }
    Ok(())
}

const fn level_colour(level: PressureLevel) -> &'static str {
    match level {
        PressureLevel::Normal => "#e5f5e0",
        PressureLevel::Elevated => "#fed976",
        PressureLevel::High => "#fd8d3c",
        PressureLevel::Critical => "#bd0026",
    }
}

/// Returns at most [`POINTS`] samples. Each is the worst of the samples that it replaces.
fn thin(samples: &[Sample]) -> Vec<Sample> {
    let each = samples.len().div_ceil(POINTS).max(1);
    samples.chunks(each).filter_map(|few| few.iter().copied().reduce(Sample::worst)).collect()
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

struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{LAYERS, Picture, Sample, Timeline, thin};
    use std::time::Duration;

    #[test]
    fn thinning_keeps_the_peak() {
        let mut samples = vec![Sample::default(); 10_000];
        samples[7777].resident = 9;
        let thinned = thin(&samples);
        assert!(thinned.len() <= 480);
        assert_eq!(thinned.iter().map(|sample| sample.resident).max(), Some(9));
    }

    #[test]
    fn a_picture_has_what_was_recorded_and_no_markup_of_others() {
        let html = picture(Some(8 << 20), 100);
        assert_eq!(html.matches("<polygon").count(), LAYERS);
        assert_eq!(html.matches("stroke-dasharray").count(), 1);
        assert!(html.contains(">limit 8.0 MiB<") && html.contains(">pressure:<"), "{html}");
        assert!(html.contains("&lt;b&gt;") && !html.contains("<b>"));
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn with_no_ledger_only_what_is_resident_is_drawn() {
        let html = picture(None, 100);
        assert_eq!(html.matches("<polyline").count(), 1);
        assert!(["<polygon", "pressure", "limit", "lists"].iter().all(|it| !html.contains(it)));
    }

    #[test]
    fn no_two_ticks_of_time_look_the_same() {
        for milliseconds in [0, 1, 30, 999, 1000, 90_000] {
            let html = picture(None, milliseconds);
            let mut ticks: Vec<_> = html.lines().filter(|line| line.contains("middle")).collect();
            ticks.iter_mut().for_each(|tick| *tick = tick.split_once("middle").unwrap().1);
            ticks.dedup();
            assert_eq!(ticks.len(), 5, "{ticks:?}");
        }
    }

    /// Draws three samples, of which the last is at `milliseconds`.
    fn picture(limit: Option<u64>, milliseconds: u64) -> String {
        let samples = [0, milliseconds / 2, milliseconds].map(|at| Sample {
            at: Duration::from_millis(at),
            used: [1 << 20; LAYERS],
            resident: 9 << 20,
            ..Sample::default()
        });
        let peaks = [0; LAYERS];
        let timeline = Timeline { samples: samples.to_vec(), peaks, last: None };
        Picture { timeline: &timeline, limit, text: "<b>".into() }.to_string()
    }
}
