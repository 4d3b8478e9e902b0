// The population database by JAX-WS and JAXB: java -cp … Population PORT
import java.util.ArrayList;
import java.util.List;
import javax.jws.WebMethod;
import javax.jws.WebParam;
import javax.jws.WebResult;
import javax.jws.WebService;
import javax.jws.soap.SOAPBinding;
import javax.xml.bind.annotation.XmlAccessType;
import javax.xml.bind.annotation.XmlAccessorType;
import javax.xml.bind.annotation.XmlElement;
import javax.xml.bind.annotation.XmlType;
import javax.xml.namespace.QName;
import javax.xml.soap.SOAPException;
import javax.xml.soap.SOAPFactory;
import javax.xml.soap.SOAPFault;
import javax.xml.ws.Endpoint;
import javax.xml.ws.soap.SOAPFaultException;

@WebService(name = "Population", targetNamespace = Population.IN)
@SOAPBinding(parameterStyle = SOAPBinding.ParameterStyle.BARE)
public class Population {
    static final String IN = "http://dancuquocgia.bca";
    static final String OUT = "http://www.mic.gov.vn/dancu/1.0";

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = IN)
    public static class Asked {
        @XmlElement(name = "SoDinhDanh", namespace = IN) public String number;
        @XmlElement(name = "HoVaTen", namespace = IN) public String name;
        @XmlElement(name = "NgayThangNamSinh", namespace = IN) public AskedBirth birth;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = IN)
    public static class AskedBirth {
        @XmlElement(name = "NgayThangNam", namespace = IN) public String day;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class Name {
        @XmlElement(name = "Ho", namespace = OUT) public String family = "Nguyễn";
        @XmlElement(name = "ChuDem", namespace = OUT, nillable = true) public String middle;
        @XmlElement(name = "Ten", namespace = OUT) public String given;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class Member {
        @XmlElement(name = "SoDinhDanh", namespace = OUT) public String number;
        @XmlElement(name = "HoVaTen", namespace = OUT) public Name name = new Name();
        @XmlElement(name = "QuanHe", namespace = OUT) public String relation;
        @XmlElement(name = "NgayThangNamSinh", namespace = OUT) public Birth birth;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class Birth {
        @XmlElement(name = "Nam", namespace = OUT) public int year;
        @XmlElement(name = "NgayThangNam", namespace = OUT) public String day;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class Collection {
        @XmlElement(name = "CongDan", namespace = OUT) public Member citizen;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class Members {
        @XmlElement(name = "ThanhVien", namespace = OUT) public List<Member> all = new ArrayList<>();
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class Household {
        @XmlElement(name = "SoSoHoKhau", namespace = OUT) public String number;
        @XmlElement(name = "DanhSachThanhVien", namespace = OUT) public Members members;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class HouseholdAnswer {
        @XmlElement(name = "HoGiaDinh", namespace = OUT) public Household household;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class Verdict {
        @XmlElement(name = "TonTai", namespace = OUT) public boolean exists;
    }

    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(namespace = OUT)
    public static class VerdictAnswer {
        @XmlElement(name = "KetQuaXacThuc", namespace = OUT) public Verdict verdict = new Verdict();
    }

    @WebMethod
    @WebResult(name = "XacThucThongTinCongDanResponse", targetNamespace = OUT)
    public VerdictAnswer verify(@WebParam(name = "XacThucThongTinCongDan", targetNamespace = IN) Asked asked) {
        VerdictAnswer answer = new VerdictAnswer();
        answer.verdict.exists = asked.name.equals("NGUYENVANA");
        return answer;
    }

    @WebMethod
    @WebResult(name = "CongdanCollection", targetNamespace = OUT)
    public Collection citizen(@WebParam(name = "TraCuuThongTinCongDan", targetNamespace = IN) Asked asked) {
        Collection answer = new Collection();
        switch (asked.number.charAt(11)) {
            case '9':
                return answer;
            case '8':
                throw refused();
            case '7':
                throw new IllegalStateException("a bug of the source's");
            default:
                answer.citizen = new Member();
                answer.citizen.number = asked.number;
                answer.citizen.name.given = "A";
                answer.citizen.birth = new Birth();
                answer.citizen.birth.year = 1985;
                answer.citizen.birth.day = asked.birth.day;
                return answer;
        }
    }

    @WebMethod
    @WebResult(name = "TraCuuThongTinHoGiaDinhResponse", targetNamespace = OUT)
    public HouseholdAnswer household(@WebParam(name = "TraCuuThongTinHoGiaDinh", targetNamespace = IN) Asked asked) {
        HouseholdAnswer answer = new HouseholdAnswer();
        answer.household = new Household();
        answer.household.number = "220001000";
        answer.household.members = new Members();
        for (int n = 1; n <= 3; n++) {
            Member member = new Member();
            member.number = "02208545530" + n;
            member.name.given = "Trần " + n;
            member.relation = "CH0" + n;
            answer.household.members.all.add(member);
        }
        return answer;
    }

    private static RuntimeException refused() {
        try {
            SOAPFault fault = SOAPFactory.newInstance().createFault("Sai tài khoản",
                new QName("http://schemas.xmlsoap.org/soap/envelope/", "Client.Authentication", "S"));
            return new SOAPFaultException(fault);
        } catch (SOAPException error) {
            return new IllegalStateException(error);
        }
    }

    public static void main(String[] arguments) {
        Endpoint.publish("http://127.0.0.1:" + arguments[0] + "/", new Population());
    }
}
