<?php
// The population database by PHP's SoapServer, in WSDL mode: php -S 127.0.0.1:PORT population.php, with WSDL in the environment.
if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    echo 'up';
    return;
}

class Population
{
    public function verify($asked)
    {
        return ['KetQuaXacThuc' => ['TonTai' => $asked->HoVaTen === 'NGUYENVANA' ? 'true' : 'false']];
    }

    public function citizen($asked)
    {
        switch (substr($asked->SoDinhDanh, -1)) {
            case '9':
                return [];
            case '8':
                throw new SoapFault('Client.Authentication', 'Sai tài khoản');
            case '7':
                throw new Exception("a bug of the source's");
        }
        return ['CongDan' => [
            'SoDinhDanh' => $asked->SoDinhDanh,
            'HoVaTen' => ['Ho' => 'Nguyễn', 'ChuDem' => null, 'Ten' => 'A'],
            'NgayThangNamSinh' => ['Nam' => 1985, 'NgayThangNam' => $asked->NgayThangNamSinh->NgayThangNam],
        ]];
    }

    public function household($asked)
    {
        $member = fn($n) => ['SoDinhDanh' => "02208545530$n", 'HoVaTen' => ['Ten' => "Trần $n"], 'QuanHe' => "CH0$n"];
        return ['HoGiaDinh' => ['SoSoHoKhau' => '220001000', 'DanhSachThanhVien' => ['ThanhVien' => array_map($member, [1, 2, 3])]]];
    }
}

$server = new SoapServer(getenv('WSDL'), ['cache_wsdl' => WSDL_CACHE_NONE]);
$server->setClass('Population');
$server->handle();
