//! The subject report as a PDF: in Vietnamese, A4 landscape, for the agency to sign and hand over (right to know: Law on Personal Data
//! Protection 91/2025/QH15).
//!
//! The font is Noto Sans (SIL Open Font License 1.1, `OFL.txt` beside it), reduced to Latin and Vietnamese letters.

mod sheet;

use crate::audit::query::outcome;
use crate::audit::service::api::Complete;
use crate::exchange_log::Entry;
use crate::exchange_log::checkpoint::Checkpoint;
use crate::exchange_log::reader::Found;
use crate::status::Reason;
use crate::time_zone::HO_CHI_MINH;
use krilla::Document;
use krilla::color::rgb;
use krilla::geom::{PathBuilder, Point, Rect};
use krilla::metadata::Metadata;
use krilla::num::NormalizedF32;
use krilla::page::PageSettings;
use krilla::paint::Fill;
use krilla::surface::Surface;
use krilla::text::{Font, TextDirection};
pub use sheet::citizen_sheet;

const REGULAR: &[u8] = include_bytes!("NotoSans-Regular.ttf");
const BOLD: &[u8] = include_bytes!("NotoSans-Bold.ttf");

/// A4 landscape, its margin, and the height of a line of the table, in points.
const PAGE: (f32, f32) = (841.9, 595.3);
const MARGIN: f32 = 40.0;
const LINE: f32 = 10.5;
const SIZE: f32 = 7.5;
/// Maximum lines of a row: a longer one continues in the next.
const MOST_LINES: usize = 20;
/// Columns: heading and width.
const COLUMNS: [(&str, f32); 7] = [
    ("Thời gian", 62.0),
    ("Cơ quan, hệ thống yêu cầu", 112.0),
    ("Nguồn và dịch vụ", 105.0),
    ("Mục đích (thủ tục, hồ sơ)", 103.0),
    ("Kết quả", 100.0),
    ("Trường dữ liệu đã cung cấp", 240.0),
    ("Bản ghi", 39.9),
];

/// The text above the table.
#[derive(Debug, Clone)]
pub struct TableHeader {
    /// The person's id.
    pub id: String,
    /// The number of the request.
    pub case: String,
    /// The period, in words.
    pub period: String,
    /// When the report was made.
    pub made: String,
    /// The log's name, size and root, with which the entries can be verified.
    pub log: String,
    /// The checkpoint up to which the report is complete, as text.
    pub complete: String,
}

/// A time in Vietnam, of Unix microseconds.
fn time(us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(us);
    at.map_or_else(|_| String::new(), |at| HO_CHI_MINH.to_datetime(at).strftime("%d/%m/%Y %H:%M:%S").to_string())
}

/// Up to where a report is complete.
fn complete_text(complete: &Complete) -> String {
    let newest = match complete.newest_us {
        0 => String::new(),
        at => format!(", bản ghi mới nhất lúc {}", time(at)),
    };
    let pruned = match complete.pruned {
        0 => String::new(),
        some => format!("; {some} bản ghi cũ đã chuyển vào kho lưu trữ, không có trong báo cáo này"),
    };
    let root = crate::hex::hex(&complete.root);
    format!(
        "Đầy đủ đến bản ghi thứ {} của nhật ký (gốc {}…{newest}) và {} bản ghi sau đó{pruned}",
        complete.size,
        root.get(..16).unwrap_or_default(),
        complete.unsealed
    )
}

impl TableHeader {
    /// The text above the report of a person: their ids, the number of the request, the period (Unix microseconds), and the log.
    pub fn new(
        ids: &[String],
        case: &str,
        period: (Option<i64>, Option<i64>),
        checkpoint: Option<&Checkpoint>,
        complete: Option<&Complete>,
    ) -> Self {
        let period = match period {
            (None, None) => "toàn bộ nhật ký".to_owned(),
            (Some(from), None) => format!("từ {}", time(from)),
            (None, Some(to)) => format!("đến trước {}", time(to)),
            (Some(from), Some(to)) => format!("từ {} đến trước {}", time(from), time(to)),
        };
        TableHeader {
            id: ids.join(", "),
            case: case.to_owned(),
            period,
            made: time(jiff::Timestamp::now().as_microsecond()),
            log: checkpoint.map_or_else(String::new, |one| {
                format!("Nhật ký {}, {} bản ghi, gốc {}", one.origin, one.size, crate::hex::hex(&one.root))
            }),
            complete: complete.map_or_else(String::new, complete_text),
        }
    }
}

/// The reason that there is no PDF.
#[derive(Debug, thiserror::Error)]
#[error("the PDF cannot be made: {0}")]
pub struct PdfError(String);

/// A font, with the widths of its letters.
struct FontFace {
    font: Font,
    metrics: ttf_parser::Face<'static>,
}

impl FontFace {
    fn new(bytes: &'static [u8]) -> Result<Self, PdfError> {
        let unfit = || PdfError("the font cannot be read".into());
        let font = Font::new(bytes.to_vec().into(), 0).ok_or_else(unfit)?;
        Ok(FontFace { font, metrics: ttf_parser::Face::parse(bytes, 0).map_err(|_| unfit())? })
    }

    fn width(&self, text: &str, size: f32) -> f32 {
        let advance = |c| self.metrics.glyph_index(c).and_then(|glyph| self.metrics.glyph_hor_advance(glyph));
        let units: u32 = text.chars().map(|c| u32::from(advance(c).unwrap_or(500))).sum();
        units as f32 * size / f32::from(self.metrics.units_per_em())
    }

    /// Breaks a text into lines: between words, and within a word that is wider than a line.
    fn wrap(&self, text: &str, size: f32, width: f32) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let joined = |line: &str| if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            let last = lines.last().map_or(String::new(), |line| joined(line));
            if self.width(&last, size) <= width {
                lines.pop();
                lines.push(last);
                continue;
            }
            if lines.last().is_some_and(|line| !line.is_empty()) {
                lines.push(String::new());
            }
            for c in word.chars() {
                let line = lines.last().map_or(String::new(), |line| format!("{line}{c}"));
                if self.width(&line, size) <= width {
                    lines.pop();
                    lines.push(line);
                } else {
                    lines.push(c.to_string());
                }
            }
        }
        lines
    }
}

struct Fonts {
    regular: FontFace,
    bold: FontFace,
}

/// A row of the table, broken into lines.
type Row = Vec<Vec<String>>;

fn height(row: &Row) -> f32 {
    row.iter().map(Vec::len).max().unwrap_or(1) as f32 * LINE + 4.0
}

/// Returns the outcome of an exchange, as text for the person.
fn sentence(entry: &Entry) -> String {
    match outcome(entry) {
        "OK" => "Đã cung cấp".to_owned(),
        reason => match Reason::ALL.iter().find(|one| one.as_str() == reason) {
            Some(known) => format!("Không cung cấp: {}", known.vietnamese()),
            None => format!("Không cung cấp: {reason}"),
        },
    }
}

/// Paths of fields, grouped by message: `name (family, given), gender`.
fn grouped(fields: &[String]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for field in fields {
        let (first, rest) = field.split_once('.').unwrap_or((field, ""));
        match groups.iter_mut().find(|(name, _)| *name == first) {
            Some((_, parts)) => parts.push(rest),
            None => groups.push((first, vec![rest])),
        }
    }
    let sentence = |(name, mut parts): (&str, Vec<&str>)| {
        parts.retain(|part| !part.is_empty());
        if parts.is_empty() { name.to_owned() } else { format!("{name} ({})", parts.join(", ")) }
    };
    if groups.is_empty() {
        "không".to_owned()
    } else {
        groups.into_iter().map(sentence).collect::<Vec<_>>().join(", ")
    }
}

/// Returns an exchange as rows: one, or several if it is long.
fn rows(fonts: &Fonts, found: &Found) -> Vec<Row> {
    let whole = row(fonts, found);
    let lines = whole.iter().map(Vec::len).max().unwrap_or(1);
    let part = |from: usize| {
        whole.iter().map(|cell| cell.iter().skip(from).take(MOST_LINES).cloned().collect()).collect::<Row>()
    };
    (0..lines.max(1)).step_by(MOST_LINES).map(part).collect()
}

fn row(fonts: &Fonts, found: &Found) -> Row {
    let entry = &found.entry;
    let operation = entry.operation.rsplit('/').next().unwrap_or("");
    let cells = [
        entry.time_text().chars().take(19).collect::<String>().replace('T', " "),
        format!("{} ({})", entry.agency, entry.client),
        format!("{}: {operation}", entry.source),
        entry.purpose.clone(),
        sentence(entry),
        grouped(&entry.fields),
        found.index.to_string(),
    ];
    cells.iter().zip(COLUMNS).map(|(text, (_, width))| fonts.regular.wrap(text, SIZE, width - 6.0)).collect()
}

/// Rows, page by page.
fn pages(rows: Vec<Row>, first: f32, other: f32) -> Vec<Vec<Row>> {
    let (mut pages, mut room) = (vec![Vec::new()], first);
    for row in rows {
        let needed = height(&row);
        if needed > room && pages.last().is_some_and(|page| !page.is_empty()) {
            pages.push(Vec::new());
            room = other;
        }
        room -= needed;
        if let Some(page) = pages.last_mut() {
            page.push(row);
        }
    }
    pages
}

/// Renders the report as a PDF: entries oldest first.
///
/// # Errors
/// The font or a page cannot be encoded.
pub fn subject_report(head: &TableHeader, found: &[Found]) -> Result<Vec<u8>, PdfError> {
    let fonts = Fonts { regular: FontFace::new(REGULAR)?, bold: FontFace::new(BOLD)? };
    let rows: Vec<Row> = found.iter().flat_map(|one| rows(&fonts, one)).collect();
    let (top, bottom) = (190.0, PAGE.1 - MARGIN - 20.0);
    let pages = pages(rows, bottom - top - 20.0, bottom - MARGIN - 20.0);
    let mut document = Document::new();
    let title = "Báo cáo về việc xử lý dữ liệu cá nhân".to_owned();
    document.set_metadata(Metadata::new().title(title).language("vi".into()));
    let count = pages.len();
    for (number, rows) in pages.into_iter().enumerate() {
        let size = PageSettings::from_wh(PAGE.0, PAGE.1).ok_or_else(|| PdfError("the page has no size".into()))?;
        let mut page = document.start_page_with(size);
        let mut pen = PageWriter { fonts: &fonts, surface: page.surface() };
        let mut y = if number == 0 { pen.head(head, found.len()) } else { MARGIN };
        y = pen.table(&rows, y.max(if number == 0 { top } else { MARGIN }));
        if rows.is_empty() {
            pen.regular(MARGIN, y + 14.0, 10.0, "Không có lượt tra cứu nào trong thời gian này.");
        }
        let foot = format!("Trang {}/{count}", number + 1);
        pen.regular(PAGE.0 - MARGIN - 50.0, PAGE.1 - MARGIN, 8.0, &foot);
        pen.regular(MARGIN, PAGE.1 - MARGIN, 7.0, &head.log);
        pen.regular(MARGIN, PAGE.1 - MARGIN + 9.0, 7.0, &head.complete);
    }
    document.finish().map_err(|error| PdfError(format!("{error:?}")))
}

/// Draws on a page.
struct PageWriter<'p> {
    fonts: &'p Fonts,
    surface: Surface<'p>,
}

impl PageWriter<'_> {
    fn text(&mut self, face: &FontFace, x: f32, y: f32, size: f32, text: &str) {
        self.surface.set_fill(Some(fill(20)));
        self.surface.draw_text(Point::from_xy(x, y), face.font.clone(), size, text, false, TextDirection::LeftToRight);
    }

    fn regular(&mut self, x: f32, y: f32, size: f32, text: &str) {
        let fonts = self.fonts;
        self.text(&fonts.regular, x, y, size, text);
    }

    fn bold(&mut self, x: f32, y: f32, size: f32, text: &str) {
        let fonts = self.fonts;
        self.text(&fonts.bold, x, y, size, text);
    }

    fn bar(&mut self, y: f32, height: f32, grey: u8) {
        let width = PAGE.0 - 2.0 * MARGIN;
        let Some(area) = Rect::from_xywh(MARGIN, y, width, height) else { return };
        let mut path = PathBuilder::new();
        path.push_rect(area);
        if let Some(path) = path.finish() {
            self.surface.set_fill(Some(fill(grey)));
            self.surface.draw_path(&path);
        }
    }

    /// Writes title and particulars, and returns where they end.
    fn head(&mut self, head: &TableHeader, count: usize) -> f32 {
        self.bold(MARGIN, 60.0, 16.0, "BÁO CÁO VỀ VIỆC XỬ LÝ DỮ LIỆU CÁ NHÂN");
        let law = "Lập theo quyền được biết của chủ thể dữ liệu (Luật Bảo vệ dữ liệu cá nhân số 91/2025/QH15)";
        self.regular(MARGIN, 78.0, 9.0, law);
        let particulars = [
            ("Mã định danh được tra cứu", head.id.clone()),
            ("Số đề nghị", head.case.clone()),
            ("Khoảng thời gian", head.period.clone()),
            ("Số lượt tra cứu", count.to_string()),
            ("Lập lúc", head.made.clone()),
        ];
        let mut y = 102.0;
        for (name, value) in particulars {
            self.bold(MARGIN, y, 9.0, name);
            self.regular(MARGIN + 150.0, y, 9.0, &value);
            y += 15.0;
        }
        y
    }

    /// Writes the table with its heading, and returns where it ends.
    fn table(&mut self, rows: &[Row], top: f32) -> f32 {
        let mut y = top;
        self.bar(y, 17.0, 215);
        let mut x = MARGIN;
        for (name, width) in COLUMNS {
            self.bold(x + 3.0, y + 11.5, SIZE, name);
            x += width;
        }
        y += 20.0;
        for row in rows {
            let mut x = MARGIN;
            for (lines, (_, width)) in row.iter().zip(COLUMNS) {
                for (number, line) in lines.iter().enumerate() {
                    self.regular(x + 3.0, y + 8.0 + number as f32 * LINE, SIZE, line);
                }
                x += width;
            }
            y += height(row);
            self.bar(y - 1.5, 0.5, 190);
        }
        y
    }
}

fn fill(grey: u8) -> Fill {
    Fill { paint: rgb::Color::new(grey, grey, grey).into(), opacity: NormalizedF32::ONE, rule: Default::default() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::Kind;

    #[test]
    fn every_line_fits_its_column_and_every_row_its_page() {
        let fonts = Fonts { regular: FontFace::new(REGULAR).unwrap(), bold: FontFace::new(BOLD).unwrap() };
        let entry = Entry {
            agency: "H49.12".into(),
            client: "bo-phan-mot-cua-thanh-pho-ha-long-va-cac-don-vi-truc-thuoc".into(),
            source: "population".into(),
            operation: "ndxp.population.v1.PopulationService/GetCitizen".into(),
            fields: (0..40).map(|number| format!("permanent_address.part_{number}")).collect(),
            ..Entry::begin(Kind::Exchange, "dc1")
        };
        let found: Vec<Found> = (0..100).map(|index| Found { index, entry: entry.clone() }).collect();
        for (lines, (_, width)) in row(&fonts, &found[0]).iter().zip(COLUMNS) {
            assert!(lines.iter().all(|line| fonts.regular.width(line, SIZE) <= width - 6.0), "{lines:?}");
        }
        let long = Entry { fields: (0..900).map(|number| format!("field_{number}")).collect(), ..entry.clone() };
        let long = rows(&fonts, &Found { index: 7, entry: long });
        assert!(long.len() > 1 && long.iter().all(|row| height(row) < 250.0));
        let all: Vec<Row> = found.iter().flat_map(|one| rows(&fonts, one)).chain(long).collect();
        let count = all.len();
        let broken = pages(all, 300.0, 450.0);
        assert_eq!(broken.iter().map(Vec::len).sum::<usize>(), count);
        assert_eq!(
            grouped(&["name.given", "gender", "name.family"].map(str::to_owned)),
            "name (given, family), gender"
        );
        assert!(broken.iter().skip(1).all(|page| page.iter().map(height).sum::<f32>() <= 450.0));
        // Every letter that a name or a reason may have.
        for c in
            "ĂÂĐÊÔƠƯăâđêôơưẠẢẤẦẨẪẬẮẰẲẴẶẸẺẼẾỀỂỄỆỈỊỌỎỐỒỔỖỘỚỜỞỠỢỤỦỨỪỬỮỰỲỴỶỸạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ…`"
                .chars()
        {
            assert!(
                fonts.regular.metrics.glyph_index(c).is_some() && fonts.bold.metrics.glyph_index(c).is_some(),
                "{c}"
            );
        }
        let head = TableHeader {
            id: "022055356620".into(),
            case: "12/KN".into(),
            period: "tất cả".into(),
            made: "nay".into(),
            log: "log".into(),
            complete: "hết".into(),
        };
        assert!(subject_report(&head, &found).unwrap().starts_with(b"%PDF-"));
    }
}
