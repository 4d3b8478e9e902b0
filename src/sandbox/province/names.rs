//! Vietnamese names by their rough frequency, and the places of the generated province.

/// Family names; each is repeated in proportion to its frequency.
pub const FAMILIES: [&str; 24] = [
    "Nguyễn", "Nguyễn", "Nguyễn", "Nguyễn", "Nguyễn", "Nguyễn", "Nguyễn", "Nguyễn", "Trần", "Trần", "Trần", "Lê", "Lê",
    "Phạm", "Phạm", "Hoàng", "Vũ", "Vũ", "Đặng", "Bùi", "Đỗ", "Ngô", "Dương", "Đinh",
];

/// Middle names of women.
pub const MIDDLES_F: [&str; 8] = ["Thị", "Thị", "Thị Thu", "Thị Hồng", "Ngọc", "Thanh", "Khánh", "Thị Kim"];
/// Middle names of men.
pub const MIDDLES_M: [&str; 8] = ["Văn", "Văn", "Đức", "Minh", "Quang", "Hữu", "Xuân", "Ngọc"];

/// Given names of women.
pub const GIVEN_F: [&str; 24] = [
    "Hạnh", "Hoa", "Lan", "Hương", "Mai", "Linh", "Trang", "Thảo", "Hà", "Nga", "Ngân", "Phương", "Quỳnh", "Yến",
    "Thủy", "Hiền", "Nhung", "Loan", "Vân", "Dung", "Huyền", "Ánh", "Chi", "Giang",
];
/// Given names of men.
pub const GIVEN_M: [&str; 24] = [
    "Hùng", "Dũng", "Tuấn", "Nam", "Hải", "Long", "Sơn", "Cường", "Thắng", "Hiếu", "Trung", "Kiên", "Quân", "Phúc",
    "Toàn", "Việt", "Đạt", "Khoa", "Bình", "Tùng", "Thành", "Lâm", "An", "Huy",
];

/// A commune in both orders: the three-tier one until 2025-06-30, the two-tier one since.
#[derive(Debug)]
pub struct Town {
    /// District of the old order (3 digits).
    pub old_district: &'static str,
    /// Its name.
    pub old_district_name: &'static str,
    /// Commune of the old order (5 digits).
    pub old_commune: &'static str,
    /// Its name.
    pub old_commune_name: &'static str,
    /// Commune of the new order (5 digits).
    pub commune: &'static str,
    /// Its name.
    pub commune_name: &'static str,
}

const fn town(
    old_district: &'static str,
    old_district_name: &'static str,
    old_commune: &'static str,
    old_commune_name: &'static str,
    commune: &'static str,
    commune_name: &'static str,
) -> Town {
    Town { old_district, old_district_name, old_commune, old_commune_name, commune, commune_name }
}

/// Communes of the generated province: real names, and codes from the decrees of both orders. One code can mean two places (06793): the
/// order in force at a record's date decides.
pub const TOWNS: [Town; 12] = [
    town("193", "Thành phố Hạ Long", "06673", "Phường Bãi Cháy", "06673", "Phường Bãi Cháy"),
    town("193", "Thành phố Hạ Long", "06691", "Phường Hồng Gai", "06685", "Phường Hồng Gai"),
    town("193", "Thành phố Hạ Long", "06658", "Phường Cao Xanh", "06658", "Phường Cao Xanh"),
    town("193", "Thành phố Hạ Long", "06664", "Phường Hà Tu", "06652", "Phường Hà Tu"),
    town("194", "Thành phố Móng Cái", "06709", "Phường Ka Long", "06712", "Phường Móng Cái 1"),
    town("194", "Thành phố Móng Cái", "06736", "Phường Hải Yên", "06736", "Phường Móng Cái 3"),
    town("195", "Thành phố Cẩm Phả", "06793", "Phường Cẩm Trung", "06793", "Phường Cẩm Phả"),
    town("195", "Thành phố Cẩm Phả", "06763", "Phường Cửa Ông", "06781", "Phường Cửa Ông"),
    town("196", "Thành phố Uông Bí", "06817", "Phường Quang Trung", "06811", "Phường Uông Bí"),
    town("205", "Thành phố Đông Triều", "07093", "Phường Đông Triều", "07093", "Phường Đông Triều"),
    town("206", "Thị xã Quảng Yên", "07132", "Phường Quảng Yên", "07132", "Phường Quảng Yên"),
    town("203", "Huyện Vân Đồn", "06994", "Thị trấn Cái Rồng", "06994", "Đặc khu Vân Đồn"),
];

/// Streets.
pub const STREETS: [&str; 10] = [
    "đường Hạ Long",
    "đường Trần Hưng Đạo",
    "đường Lê Thánh Tông",
    "đường Nguyễn Văn Cừ",
    "đường Quang Trung",
    "đường 25 tháng 4",
    "đường Trần Phú",
    "đường Bạch Đằng",
    "đường Cái Lân",
    "đường Hùng Thắng",
];

/// Trades of enterprises: VSIC code, its name, and the first word of their names.
pub const TRADES: [(&str, &str, &str); 8] = [
    ("0510", "Khai thác và thu gom than cứng", "Than"),
    ("5022", "Vận tải hàng hóa đường thuỷ nội địa", "Vận tải biển"),
    ("5510", "Dịch vụ lưu trú ngắn ngày", "Du lịch"),
    ("4100", "Xây dựng nhà để ở", "Xây dựng"),
    ("0311", "Khai thác thuỷ sản biển", "Thủy sản"),
    ("4690", "Bán buôn tổng hợp", "Thương mại"),
    ("6201", "Lập trình máy vi tính", "Công nghệ"),
    ("1020", "Chế biến, bảo quản thuỷ sản", "Chế biến hải sản"),
];

/// Administrative procedures of the sandbox: code, name, code and name of the field.
pub const PROCEDURES: [(&str, &str, &str, &str); 8] = [
    ("1.004873", "Cấp Giấy xác nhận tình trạng hôn nhân", "G15-HT01", "Hộ tịch"),
    ("1.001193", "Đăng ký khai sinh", "G15-HT01", "Hộ tịch"),
    ("1.000894", "Đăng ký kết hôn", "G15-HT01", "Hộ tịch"),
    ("1.000656", "Đăng ký khai tử", "G15-HT01", "Hộ tịch"),
    ("2.000488", "Cấp Phiếu lý lịch tư pháp cho công dân Việt Nam", "G15-LL01", "Lý lịch tư pháp"),
    ("1.004222", "Đăng ký thường trú", "G01-CT01", "Đăng ký, quản lý cư trú"),
    ("2.001610", "Đăng ký thành lập doanh nghiệp tư nhân", "G12-DN01", "Thành lập và hoạt động của doanh nghiệp"),
    ("1.012753", "Đăng ký đất đai, cấp Giấy chứng nhận lần đầu", "G13-DD01", "Đất đai"),
];
