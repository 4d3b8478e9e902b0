// The population database by node-soap or strong-soap, over mTLS by itself: node population.js MODULES PACKAGE WSDL CERTIFICATE KEY CA
const [modules, name, wsdl, certificate, key, ca] = process.argv.slice(2)
const fs = require('fs')
const https = require('https')
const library = require(`${modules}/${name}`)
const soap = library.soap ?? library

const fault = (code, text) => { throw { Fault: { faultcode: code, faultstring: text, statusCode: 500 } } }
const member = n => ({ SoDinhDanh: `02208545530${n}`, HoVaTen: { Ten: `Trần ${n}` }, QuanHe: `CH0${n}` })
const operations = {
  verify: asked => ({ KetQuaXacThuc: { TonTai: String(asked.HoVaTen === 'NGUYENVANA') } }),
  citizen: asked => {
    switch (asked.SoDinhDanh.slice(-1)) {
      case '9': return {}
      case '8': return fault('soap:Client.Authentication', 'Sai tài khoản')
      case '7': throw new Error("a bug of the source's")
    }
    const birth = { Nam: 1985, NgayThangNam: asked.NgayThangNamSinh.NgayThangNam }
    return { CongDan: { SoDinhDanh: asked.SoDinhDanh, HoVaTen: { Ho: 'Nguyễn', Ten: 'A' }, NgayThangNamSinh: birth } }
  },
  household: () => ({ HoGiaDinh: { SoSoHoKhau: '220001000', DanhSachThanhVien: { ThanhVien: [1, 2, 3].map(member) } } }),
}

// node-soap writes the body's element itself, strong-soap wants it named.
const elements = { verify: 'XacThucThongTinCongDanResponse', citizen: 'CongdanCollection', household: 'TraCuuThongTinHoGiaDinhResponse' }
const named = Object.entries(operations).map(([name, answer]) => [name, asked => ({ [elements[name]]: answer(asked) })])
const offered = library.soap ? Object.fromEntries(named) : operations

const secrets = { cert: fs.readFileSync(certificate), key: fs.readFileSync(key), ca: fs.readFileSync(ca) }
const server = https.createServer({ ...secrets, requestCert: true, rejectUnauthorized: true }, (_, answer) => answer.end('up'))
server.listen(0, '127.0.0.1', () => {
  const ready = () => console.log(server.address().port)
  soap.listen(server, '/', { Population: { Application: offered } }, fs.readFileSync(wsdl, 'utf8'), ready)
  // strong-soap calls nobody back: what it gets before it has read the WSDL is answered "up".
  if (library.soap) ready()
})
