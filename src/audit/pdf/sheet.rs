//! The citizen's sheet as a PDF: A4, its heading as Decree 30/2020/NĐ-CP (appendix I) lays out official documents.

use super::{BOLD, FontFace, Fonts, PageWriter, PdfError, REGULAR, fill};
use crate::audit::sheet::{Sheet, SheetRow};
use krilla::Document;
use krilla::geom::{PathBuilder, Rect};
use krilla::metadata::Metadata;
use krilla::page::PageSettings;
use qrcode::QrCode;

/// A4, its margins (appendix I: left 30 mm, right 15 to 20 mm, above and below 20 mm), in points.
const PAGE: (f32, f32) = (595.3, 841.9);
const LEFT: f32 = 85.0;
const RIGHT: f32 = 549.0;
const TOP: f32 = 57.0;
const BOTTOM: f32 = 780.0;
/// Size of the text, and its lines.
const SIZE: f32 = 12.0;
const LINE: f32 = 16.5;
/// The table's letters and lines.
const SMALL: (f32, f32) = (9.5, 12.5);
/// Columns of the table: heading and width.
const COLUMNS: [(&str, f32); 5] = [
    ("Ngày", 58.0),
    ("Cơ quan tra cứu", 102.0),
    ("Thủ tục, hồ sơ", 92.0),
    ("Thông tin đã cung cấp", 176.0),
    ("Lượt", 36.0),
];
/// Side of the QR code.
const QR: f32 = 120.0;

/// Something to draw below what is there.
enum Block<'s> {
    /// A line, and whether it is bold.
    Line(String, bool),
    /// The table's heading.
    Heading,
    /// A row of the table.
    Row(&'s SheetRow),
    /// The QR code.
    Code,
    /// The signature.
    Signature,
}

/// What a page draws with.
struct Writer<'p> {
    pen: PageWriter<'p>,
}

impl Writer<'_> {
    fn rect(&mut self, (x, y, width, height): (f32, f32, f32, f32), grey: u8) {
        let Some(area) = Rect::from_xywh(x, y, width, height) else { return };
        let mut path = PathBuilder::new();
        path.push_rect(area);
        if let Some(path) = path.finish() {
            self.pen.surface.set_fill(Some(fill(grey)));
            self.pen.surface.draw_path(&path);
        }
    }

    /// Lines around a middle, and where they end.
    fn centred(&mut self, (middle, width): (f32, f32), y: f32, (size, bold): (f32, bool), text: &str) -> f32 {
        let fonts = self.pen.fonts;
        let face = if bold { &fonts.bold } else { &fonts.regular };
        let mut at = y;
        for line in face.wrap(text, size, width) {
            self.pen.text(face, middle - face.width(&line, size) / 2.0, at, size, &line);
            at += size * 1.3;
        }
        at
    }

    /// Heading: agency at the left, the country's name at the right, number, place and date below.
    fn head(&mut self, sheet: &Sheet) -> f32 {
        let (left, right) = ((LEFT + 88.0, 180.0), (RIGHT - 132.0, 276.0));
        let mut y = self.centred(left, TOP + 12.0, (11.0, false), &sheet.head.superior.to_uppercase());
        y = self.centred(left, y, (11.5, true), &sheet.head.agency.to_uppercase());
        self.rect((left.0 - 35.0, y - 9.0, 70.0, 0.7), 20);
        let number = self.centred(left, y + 10.0, (12.0, false), "Số: ........../..........");
        let mut y = self.centred(right, TOP + 12.0, (11.5, true), "CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM");
        y = self.centred(right, y + 2.0, (12.5, true), "Độc lập - Tự do - Hạnh phúc");
        self.rect((right.0 - 84.0, y - 11.0, 168.0, 0.7), 20);
        y = self.centred(right, y + 10.0, (12.0, false), &sheet.dateline());
        let middle = ((LEFT + RIGHT) / 2.0, RIGHT - LEFT);
        let mut y = self.centred(middle, y.max(number) + 22.0, (14.0, true), "PHIẾU THÔNG TIN");
        y = self.centred(middle, y, (13.0, true), "Về việc tra cứu dữ liệu cá nhân");
        self.rect((middle.0 - 60.0, y - 10.0, 120.0, 0.7), 20);
        y + 16.0
    }

    fn row(&mut self, y: f32, lines: &[Vec<String>], bold: bool) {
        let fonts = self.pen.fonts;
        let mut x = LEFT;
        for (cell, (_, width)) in lines.iter().zip(COLUMNS) {
            for (at, line) in cell.iter().enumerate() {
                let face = if bold { &fonts.bold } else { &fonts.regular };
                self.pen.text(face, x + 3.0, y + 11.0 + at as f32 * SMALL.1, SMALL.0, line);
            }
            x += width;
        }
    }

    fn code(&mut self, y: f32, text: &str) {
        let Ok(code) = QrCode::new(text.as_bytes()) else { return };
        let side = code.width();
        // Four modules of white around it (ISO/IEC 18004).
        let module = QR / (side + 8) as f32;
        for (at, _) in code.to_colors().iter().enumerate().filter(|(_, colour)| **colour == qrcode::Color::Dark) {
            let (column, row) = ((at % side + 4) as f32, (at / side + 4) as f32);
            self.rect((LEFT + column * module, y + row * module, module + 0.05, module + 0.05), 0);
        }
        self.pen.regular(
            LEFT + QR + 8.0,
            y + QR / 2.0,
            10.0,
            "Điểm kiểm có chữ ký số của nhật ký (C2SP tlog-checkpoint).",
        );
    }

    fn signature(&mut self, y: f32, sheet: &Sheet) {
        self.pen.bold(LEFT, y + 14.0, 10.5, "Nơi nhận:");
        self.pen.regular(LEFT, y + 28.0, 10.0, "- Như trên;");
        self.pen.regular(LEFT, y + 41.0, 10.0, "- Lưu: VT.");
        let right = (RIGHT - 110.0, 220.0);
        let signer = if sheet.head.signer.is_empty() { "THỦ TRƯỞNG CƠ QUAN" } else { &sheet.head.signer };
        let below = self.centred(right, y + 14.0, (12.0, true), &signer.to_uppercase());
        self.centred(right, below, (10.5, false), "(Ký, ghi rõ họ tên và đóng dấu)");
    }
}

fn cells(fonts: &Fonts, row: &SheetRow) -> Vec<Vec<String>> {
    let kinds = if row.given { row.kinds.join("; ") } else { "Không cung cấp".to_owned() };
    let kinds = if kinds.is_empty() { "Kết quả xác nhận đúng hoặc sai".to_owned() } else { kinds };
    let source = format!("{kinds} (từ {})", row.source);
    let texts = [row.day.clone(), row.agency.clone(), row.purpose.clone(), source, row.count.to_string()];
    texts.iter().zip(COLUMNS).map(|(text, (_, width))| fonts.regular.wrap(text, SMALL.0, width - 6.0)).collect()
}

fn blocks<'s>(fonts: &Fonts, sheet: &'s Sheet) -> Vec<Block<'s>> {
    let mut all = Vec::new();
    let paragraph = |text: &str, bold: bool, all: &mut Vec<Block<'s>>| {
        let face = if bold { &fonts.bold } else { &fonts.regular };
        all.extend(face.wrap(text, SIZE, RIGHT - LEFT).into_iter().map(|line| Block::Line(line, bold)));
    };
    paragraph(&format!("Kính gửi: Ông/Bà có số định danh {}", sheet.ids.join(", ")), true, &mut all);
    let basis = format!(
        "Căn cứ Luật Bảo vệ dữ liệu cá nhân số 91/2025/QH15 và đề nghị số {} của Ông/Bà, cơ quan thông báo về việc tra cứu dữ liệu cá nhân \
         của Ông/Bà qua nền tảng kết nối, chia sẻ dữ liệu như sau:",
        sheet.case
    );
    paragraph(&basis, false, &mut all);
    paragraph("1. Tóm tắt", true, &mut all);
    sheet.summary().iter().for_each(|line| paragraph(line, false, &mut all));
    if !sheet.rows.is_empty() {
        paragraph("2. Các lượt tra cứu", true, &mut all);
        all.push(Block::Heading);
        all.extend(sheet.rows.iter().map(Block::Row));
    }
    paragraph(if sheet.rows.is_empty() { "2. Cách kiểm tra" } else { "3. Cách kiểm tra" }, true, &mut all);
    sheet.check().iter().for_each(|line| paragraph(line, false, &mut all));
    if !sheet.checkpoint.is_empty() {
        all.push(Block::Code);
    }
    paragraph(if sheet.rows.is_empty() { "3. Phản ánh, khiếu nại" } else { "4. Phản ánh, khiếu nại" }, true, &mut all);
    paragraph(&sheet.complaint(), false, &mut all);
    all.push(Block::Signature);
    all
}

/// A block's height, and its cells where it is a row.
fn measured(fonts: &Fonts, block: &Block<'_>) -> (f32, Vec<Vec<String>>) {
    match block {
        Block::Line(_, bold) => (if *bold { LINE + 4.0 } else { LINE }, Vec::new()),
        Block::Heading => (20.0, COLUMNS.iter().map(|(name, _)| vec![(*name).to_owned()]).collect()),
        Block::Row(row) => {
            let cells = cells(fonts, row);
            (cells.iter().map(Vec::len).max().unwrap_or(1) as f32 * SMALL.1 + 6.0, cells)
        }
        Block::Code => (QR + 6.0, Vec::new()),
        Block::Signature => (130.0, Vec::new()),
    }
}

/// Renders the sheet.
///
/// # Errors
/// If the font or a page cannot be encoded.
pub fn citizen_sheet(sheet: &Sheet) -> Result<Vec<u8>, PdfError> {
    let fonts = Fonts { regular: FontFace::new(REGULAR)?, bold: FontFace::new(BOLD)? };
    let mut document = Document::new();
    let title = "Phiếu thông tin về việc tra cứu dữ liệu cá nhân".to_owned();
    document.set_metadata(Metadata::new().title(title).language("vi".into()));
    let all = blocks(&fonts, sheet);
    let mut rest = all.iter().map(|block| (block, measured(&fonts, block))).peekable();
    let mut number = 0;
    while rest.peek().is_some() || number == 0 {
        number += 1;
        let size = PageSettings::from_wh(PAGE.0, PAGE.1).ok_or_else(|| PdfError("the page has no size".into()))?;
        let mut page = document.start_page_with(size);
        let mut writer = Writer { pen: PageWriter { fonts: &fonts, surface: page.surface() } };
        let begins = if number == 1 { writer.head(sheet) } else { TOP + 12.0 };
        if number > 1 {
            writer.centred(((LEFT + RIGHT) / 2.0, 60.0), 40.0, (11.0, false), &number.to_string());
        }
        let mut y = begins;
        while let Some((block, (height, cells))) = rest.next_if(|(_, (height, _))| y + height <= BOTTOM || y <= begins)
        {
            match block {
                Block::Line(text, false) => writer.pen.regular(LEFT, y + SIZE, SIZE, text),
                Block::Line(text, true) => writer.pen.bold(LEFT, y + SIZE + 3.0, SIZE, text),
                Block::Heading => {
                    writer.rect((LEFT, y + 1.0, RIGHT - LEFT, 17.0), 225);
                    writer.row(y + 2.0, &cells, true);
                }
                Block::Row(_) => {
                    writer.row(y, &cells, false);
                    writer.rect((LEFT, y + height - 1.5, RIGHT - LEFT, 0.5), 170);
                }
                Block::Code => writer.code(y, &sheet.checkpoint),
                Block::Signature => writer.signature(y, sheet),
            }
            y += height;
        }
    }
    document.finish().map_err(|error| PdfError(format!("{error:?}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audit::sheet::Letterhead;

    fn sheet(rows: usize) -> Sheet {
        let row = SheetRow {
            day: "27/11/2026".into(),
            agency: "H49.12 (hệ thống bo-phan-mot-cua-thanh-pho-ha-long-va-cac-don-vi-truc-thuoc)".into(),
            source: "Cơ sở dữ liệu quốc gia về dân cư".into(),
            purpose: "thủ tục 1.004222".into(),
            kinds: vec!["thông tin cơ bản (họ tên, ngày sinh)".into(), "tôn giáo".into()],
            given: true,
            count: 2,
        };
        let refused = SheetRow { given: false, kinds: vec![], ..row.clone() };
        Sheet {
            head: Letterhead {
                superior: "Ủy ban nhân dân tỉnh Quảng Ninh".into(),
                agency: "Sở Khoa học và Công nghệ".into(),
                city: "Quảng Ninh".into(),
                signer: "Giám đốc".into(),
                contact: "số 1 đường Nguyễn Văn Cừ, điện thoại 0203 3825 566".into(),
            },
            ids: vec!["022055356620".into()],
            case: "12/KN".into(),
            period: "toàn bộ nhật ký".into(),
            made: 1_795_737_600,
            rows: (0..rows).map(|at| if at % 3 == 2 { refused.clone() } else { row.clone() }).collect(),
            log: "Nhật ký ndxp.quangninh.gov.vn/log, 1234 bản ghi, gốc 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".into(),
            complete: "Đầy đủ đến bản ghi thứ 1234 của nhật ký".into(),
            checkpoint: "ndxp.quangninh.gov.vn/log\n1234\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— ndxp.quangninh.gov.vn/log AZ3xW0kQ9c7i0l4i1kqzGk3r9m2n7PqTqv2c3w8yB0w6mQ2u5vZ1sD4kR8tY7xN0aLhJ9fE6bC3pM5iV2oU1gX4dS7w=\n".into(),
        }
    }

    #[test]
    fn a_sheet_is_a_pdf_however_many_requests_it_has() {
        for rows in [0, 4, 200] {
            let pdf = citizen_sheet(&sheet(rows)).unwrap();
            assert!(pdf.starts_with(b"%PDF-"), "{rows}");
            if let Ok(folder) = std::env::var("NDXP_SHEETS") {
                std::fs::write(format!("{folder}/sheet-{rows}.pdf"), pdf).unwrap();
            }
        }
    }

    #[test]
    fn every_line_fits_the_page_and_every_cell_its_column() {
        let fonts = Fonts { regular: FontFace::new(REGULAR).unwrap(), bold: FontFace::new(BOLD).unwrap() };
        let sheet = sheet(3);
        assert!((COLUMNS.iter().map(|(_, width)| width).sum::<f32>() - (RIGHT - LEFT)).abs() < 0.5);
        for block in blocks(&fonts, &sheet) {
            match &block {
                Block::Line(text, bold) => {
                    let face = if *bold { &fonts.bold } else { &fonts.regular };
                    assert!(face.width(text, SIZE) <= RIGHT - LEFT, "{text}");
                }
                Block::Row(row) => {
                    for (lines, (_, width)) in cells(&fonts, row).iter().zip(COLUMNS) {
                        assert!(
                            lines.iter().all(|line| fonts.regular.width(line, SMALL.0) <= width - 6.0),
                            "{lines:?}"
                        );
                    }
                }
                Block::Heading | Block::Code | Block::Signature => {}
            }
        }
    }
}
